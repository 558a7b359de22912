//! The target `cache` (src/targets/cache.rs) for libFuzzer; without it, a replay of the files named.
#![cfg_attr(fuzzing, no_main)]
larder_fuzz::main_of!(larder_fuzz::targets::cache::run);
