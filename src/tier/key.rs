//! Keys as the shared tier sees them: bytes, there and back.

use std::borrow::Cow;
use std::sync::Arc;

/// A key as bytes. Equal keys have equal bytes, different keys different ones; a borrowed form has those of its owned
/// form. Keys of a kilobyte and more are better hashed by their owner.
///
/// ```
/// use larder::tier::TierKey;
///
/// assert_eq!(*"user:7".to_tier(), *b"user:7");
/// assert_eq!(*7u64.to_tier(), *b"7");
/// ```
pub trait TierKey {
    /// The bytes.
    fn to_tier(&self) -> Cow<'_, [u8]>;
}

/// A key that can be made of its bytes again: the shared tier tells by bytes what has changed.
///
/// ```
/// use larder::tier::FromTierKey;
///
/// assert_eq!(u64::from_tier(b"7"), Some(7));
/// assert_eq!(u64::from_tier(b"seven"), None);
/// ```
pub trait FromTierKey: TierKey + Sized {
    /// The key that these are the bytes of; `None` if there is no such key.
    fn from_tier(bytes: &[u8]) -> Option<Self>;
}

impl TierKey for str {
    fn to_tier(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.as_bytes())
    }
}

impl TierKey for [u8] {
    fn to_tier(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self)
    }
}

macro_rules! text_keys {
    ($($key:ty),*) => {$(
        impl TierKey for $key {
            fn to_tier(&self) -> Cow<'_, [u8]> {
                Cow::Borrowed(self.as_bytes())
            }
        }

        impl FromTierKey for $key {
            fn from_tier(bytes: &[u8]) -> Option<Self> {
                Some(std::str::from_utf8(bytes).ok()?.into())
            }
        }
    )*};
}

text_keys!(String, Box<str>, Arc<str>);

impl TierKey for Vec<u8> {
    fn to_tier(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self)
    }
}

impl FromTierKey for Vec<u8> {
    fn from_tier(bytes: &[u8]) -> Option<Self> {
        Some(bytes.to_vec())
    }
}

macro_rules! number_keys {
    ($($key:ty),*) => {$(
        impl TierKey for $key {
            fn to_tier(&self) -> Cow<'_, [u8]> {
                Cow::Owned(self.to_string().into_bytes())
            }
        }

        impl FromTierKey for $key {
            fn from_tier(bytes: &[u8]) -> Option<Self> {
                let number: $key = std::str::from_utf8(bytes).ok()?.parse().ok()?;
                // "+7" and "07" are nobody's bytes.
                (*number.to_tier() == *bytes).then_some(number)
            }
        }
    )*};
}

number_keys!(
    u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize
);

#[cfg(all(test, not(larder_shuttle)))]
mod tests {
    use super::{FromTierKey, TierKey};

    #[test]
    fn keys_come_back_as_they_went() {
        for key in [0, 7, u64::MAX] {
            assert_eq!(u64::from_tier(&key.to_tier()), Some(key));
        }
        for key in [i64::MIN, -1, 0] {
            assert_eq!(i64::from_tier(&key.to_tier()), Some(key));
        }
        assert_eq!(
            String::from_tier("ä b".to_owned().to_tier().as_ref()),
            Some("ä b".into())
        );
        assert_eq!(String::from_tier(&[0xff]), None);
        assert_eq!(Vec::from_tier(&[0xff]), Some(vec![0xff]));
        for odd in [&b"+7"[..], b"07", b"", b" 7", b"-0"] {
            assert_eq!(u64::from_tier(odd), None);
        }
    }
}
