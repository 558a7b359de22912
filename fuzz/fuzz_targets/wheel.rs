//! The target `wheel` (src/targets/wheel.rs) for libFuzzer; without it, a replay of the files named.
#![cfg_attr(fuzzing, no_main)]
larder_fuzz::main_of!(larder_fuzz::targets::wheel::run);
