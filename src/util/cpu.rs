//! Two things that processors can do and stable Rust has no safe word for: fetching memory that will be
//! needed soon, and comparing sixteen words (or eight half ones) at once.
//!
//! A write touches a few cache lines that nothing else keeps near: the key's bucket in the index, its
//! bucket among the ghosts, and the same two of the entry that will have to go, and what that one owns. Each is
//! known some hundred instructions before it is needed. Asked for then, they arrive together instead of one
//! after the other.

/// Asks for the cache line in which `place` begins. Changes nothing but the time that a later access takes.
#[inline(always)]
#[cfg(all(target_arch = "x86_64", not(miri)))]
pub(crate) fn prefetch<T>(place: &T) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: every x86-64 processor has the instruction. It is a hint: it reads nothing that the program
    // could see, and faults for no address (and this one belongs to a live reference).
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast()) }
}

/// The widest value whose words [`prefetch_owned`] looks at: a `String`, a `Vec`.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const WORDS: usize = 3;

/// Asks for what `owner` will look at when it is dropped: an `Arc` its count, a `String` its text. As nobody
/// knows which of its words is a pointer, all are taken for one. Does nothing for what is dropped for nothing,
/// or is wide. (Exclusively borrowed, because a type may let its bytes be changed through shared references.)
#[inline(always)]
#[cfg(all(target_arch = "x86_64", not(miri)))]
pub(crate) fn prefetch_owned<T>(owner: &mut T) {
    use std::arch::asm;
    use std::mem::{MaybeUninit, needs_drop};

    let words = size_of::<T>() / size_of::<u64>();
    if !needs_drop::<T>() || words > WORDS {
        return;
    }
    for at in 0..words {
        // SAFETY: the word lies within the value, which is borrowed exclusively, and may be anything, also
        // uninitialised. The instruction is a hint: it reads nothing that the program could see, and faults
        // for no address.
        unsafe {
            let place = std::ptr::from_mut(owner).cast::<MaybeUninit<u64>>();
            let word = place.add(at).read_unaligned();
            asm!("prefetcht0 [{word}]", word = in(reg) word, options(nostack, preserves_flags, readonly));
        }
    }
}

/// Elsewhere stable Rust has no such instruction.
#[inline(always)]
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
pub(crate) fn prefetch<T>(_place: &T) {}

#[inline(always)]
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
pub(crate) fn prefetch_owned<T>(_owner: &mut T) {}

/// A bit for each of the words that is `wanted` where `mask` has ones, the first word's lowest.
#[inline(always)]
#[cfg(all(target_arch = "x86_64", not(miri)))]
pub(crate) fn equal_words(words: &[u32; 16], mask: u32, wanted: u32) -> u32 {
    use std::arch::x86_64::{
        __m128i, _mm_and_si128, _mm_cmpeq_epi32, _mm_loadu_si128, _mm_movemask_epi8,
        _mm_packs_epi16, _mm_packs_epi32, _mm_set1_epi32,
    };
    // SAFETY: SSE2 is part of x86-64. The four loads read the array's 64 bytes, each 16 of them, and need
    // no alignment; nothing else touches memory.
    unsafe {
        let (mask, wanted) = (_mm_set1_epi32(mask as i32), _mm_set1_epi32(wanted as i32));
        let at = words.as_ptr().cast::<__m128i>();
        let four = |quarter: usize| {
            let words = _mm_loadu_si128(at.add(quarter));
            _mm_cmpeq_epi32(_mm_and_si128(words, mask), wanted)
        };
        // Each comparison leaves ones or zeroes, which packing keeps.
        let (low, high) = (
            _mm_packs_epi32(four(0), four(1)),
            _mm_packs_epi32(four(2), four(3)),
        );
        _mm_movemask_epi8(_mm_packs_epi16(low, high)) as u32
    }
}

/// A bit for each of the eight 16-bit parts of `parts` that is `wanted`, the lowest part's lowest.
#[inline(always)]
#[cfg(all(target_arch = "x86_64", not(miri)))]
pub(crate) fn equal_parts(parts: u128, wanted: u16) -> u32 {
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi16, _mm_loadu_si128, _mm_movemask_epi8, _mm_packs_epi16,
        _mm_set1_epi16, _mm_setzero_si128,
    };
    // SAFETY: SSE2 is part of x86-64. The load reads the 16 bytes of a live number, and needs no alignment;
    // nothing else touches memory.
    unsafe {
        let parts = _mm_loadu_si128(std::ptr::from_ref(&parts).cast::<__m128i>());
        let equal = _mm_cmpeq_epi16(parts, _mm_set1_epi16(wanted as i16));
        _mm_movemask_epi8(_mm_packs_epi16(equal, _mm_setzero_si128())) as u32
    }
}

/// What [`equal_parts`] computes, part by part.
#[inline]
#[cfg(any(test, not(all(target_arch = "x86_64", not(miri)))))]
fn equal_parts_one_by_one(parts: u128, wanted: u16) -> u32 {
    (0..8).fold(0, |bits, at| {
        bits | u32::from((parts >> (16 * at)) as u16 == wanted) << at
    })
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
pub(crate) use equal_parts_one_by_one as equal_parts;

/// Comparing words, word by word.
#[inline]
#[cfg(any(test, not(all(target_arch = "x86_64", not(miri)))))]
fn equal_words_one_by_one(words: &[u32; 16], mask: u32, wanted: u32) -> u32 {
    let bits = words.iter().enumerate();
    bits.fold(0, |bits, (at, word)| {
        bits | u32::from(word & mask == wanted) << at
    })
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
pub(crate) use equal_words_one_by_one as equal_words;

#[cfg(test)]
mod tests {
    #[test]
    fn asking_for_what_is_owned_changes_nothing() {
        use std::sync::Arc;

        /// Words that are no pointers, and bytes that were never written.
        #[repr(C, align(8))]
        struct Odd(u8, u64, u8);
        impl Drop for Odd {
            fn drop(&mut self) {
                assert_eq!((self.0, self.1, self.2), (1, u64::MAX, 3));
            }
        }

        let mut shared = Arc::new(5);
        super::prefetch_owned(&mut shared);
        assert_eq!(Arc::strong_count(&shared), 1);
        let mut text = "a text of its own".to_owned();
        super::prefetch_owned(&mut text);
        super::prefetch_owned(&mut String::new());
        super::prefetch_owned(&mut Some(Box::new(7)));
        super::prefetch_owned(&mut [1_u8, 2, 3]);
        super::prefetch_owned(&mut Odd(1, u64::MAX, 3));
        super::prefetch_owned(&mut vec![text; 3]);
    }

    #[test]
    fn compares_as_one_does_by_hand() {
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            // Few values, so that many are the same.
            (seed >> 11) as u32 & 0x8100_0081
        };
        for _ in 0..10_000 {
            let words = std::array::from_fn(|_| next());
            let mask = next() | 0x100;
            let wanted = words[3] & mask;
            let by_hand = super::equal_words_one_by_one(&words, mask, wanted);
            assert_eq!(super::equal_words(&words, mask, wanted), by_hand);
            assert!(by_hand >> 3 & 1 == 1);
        }
        assert_eq!(super::equal_words(&[5; 16], !0, 5), 0xffff);
        for _ in 0..10_000 {
            let parts = (0..8).fold(0, |parts, _| parts << 16 | u128::from(next() as u16));
            let wanted = (parts >> 48) as u16;
            let by_hand = super::equal_parts_one_by_one(parts, wanted);
            assert_eq!(super::equal_parts(parts, wanted), by_hand);
            assert!(by_hand >> 3 & 1 == 1);
        }
    }
}
