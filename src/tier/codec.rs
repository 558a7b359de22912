//! Values as bytes.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Turns values into bytes for the shared tier, and bytes into values. Whatever the bytes, it must not panic, and
/// should not allocate much more than they are long.
///
/// A codec of your own takes an id of 128 or above: contents bear it, and one of another id is not read.
///
/// ```
/// use larder::tier::{Codec, CodecError};
///
/// struct BigEndian;
///
/// impl Codec<u32> for BigEndian {
///     fn id(&self) -> u8 {
///         128
///     }
///
///     fn encode(&self, value: &u32, into: &mut Vec<u8>) -> Result<(), CodecError> {
///         into.extend_from_slice(&value.to_be_bytes());
///         Ok(())
///     }
///
///     fn decode(&self, bytes: &[u8]) -> Result<u32, CodecError> {
///         Ok(u32::from_be_bytes(bytes.try_into().map_err(CodecError::new)?))
///     }
/// }
/// # assert_eq!(BigEndian.decode(&[0, 0, 0, 7])?, 7);
/// # Ok::<(), CodecError>(())
/// ```
pub trait Codec<V>: Send + Sync + 'static {
    /// Which codec it is.
    fn id(&self) -> u8;

    /// Appends the value's bytes.
    ///
    /// # Errors
    /// Why the value has none.
    fn encode(&self, value: &V, into: &mut Vec<u8>) -> Result<(), CodecError>;

    /// The value of these bytes.
    ///
    /// # Errors
    /// Why they are no value's.
    fn decode(&self, bytes: &[u8]) -> Result<V, CodecError>;
}

/// Why a value has no bytes, or bytes have no value.
#[derive(Debug)]
pub struct CodecError(Box<dyn Error + Send + Sync>);

impl CodecError {
    /// Of any error, or a text.
    ///
    /// ```
    /// let error = larder::tier::CodecError::new("not a colour");
    /// assert_eq!(error.to_string(), "not a colour");
    /// ```
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        CodecError(error.into())
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for CodecError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// Bytes and text as they are.
///
/// ```
/// use larder::tier::{Codec, RawBytes};
///
/// let text: String = RawBytes.decode(b"chair")?;
/// assert_eq!(text, "chair");
/// # Ok::<(), larder::tier::CodecError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct RawBytes;

macro_rules! plain {
    ($($value:ty: $bytes:expr, $from:expr;)*) => {$(
        impl Codec<$value> for RawBytes {
            fn id(&self) -> u8 {
                1
            }

            fn encode(&self, value: &$value, into: &mut Vec<u8>) -> Result<(), CodecError> {
                let bytes: fn(&$value) -> &[u8] = $bytes;
                into.extend_from_slice(bytes(value));
                Ok(())
            }

            fn decode(&self, bytes: &[u8]) -> Result<$value, CodecError> {
                let from: fn(&[u8]) -> Result<$value, CodecError> = $from;
                from(bytes)
            }
        }
    )*};
}

fn text(bytes: &[u8]) -> Result<&str, CodecError> {
    std::str::from_utf8(bytes).map_err(CodecError::new)
}

plain! {
    Vec<u8>: |value| value, |bytes| Ok(bytes.to_vec());
    Arc<[u8]>: |value| value, |bytes| Ok(bytes.into());
    String: |value| value.as_bytes(), |bytes| Ok(text(bytes)?.to_owned());
    Box<str>: |value| value.as_bytes(), |bytes| Ok(text(bytes)?.into());
    Arc<str>: |value| value.as_bytes(), |bytes| Ok(text(bytes)?.into());
}

/// Any value that serde knows, in the compact form of the `postcard` crate. Its bytes do not say which type they
/// are of: raise [`schema`](super::TieredBuilder::schema) whenever the type changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Postcard;

impl<V: serde::Serialize + serde::de::DeserializeOwned> Codec<V> for Postcard {
    fn id(&self) -> u8 {
        2
    }

    fn encode(&self, value: &V, into: &mut Vec<u8>) -> Result<(), CodecError> {
        let bytes = postcard::to_extend(value, std::mem::take(into)).map_err(CodecError::new)?;
        *into = bytes;
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<V, CodecError> {
        let (value, rest) = postcard::take_from_bytes(bytes).map_err(CodecError::new)?;
        if rest.is_empty() {
            Ok(value)
        } else {
            Err(CodecError::new("there are bytes behind the value"))
        }
    }
}

/// Any value that serde knows, as JSON: longer and slower than [`Postcard`], and readable by others.
#[cfg(feature = "json")]
#[cfg_attr(docsrs, doc(cfg(feature = "json")))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

#[cfg(feature = "json")]
impl<V: serde::Serialize + serde::de::DeserializeOwned> Codec<V> for Json {
    fn id(&self) -> u8 {
        3
    }

    fn encode(&self, value: &V, into: &mut Vec<u8>) -> Result<(), CodecError> {
        serde_json::to_writer(into, value).map_err(CodecError::new)
    }

    fn decode(&self, bytes: &[u8]) -> Result<V, CodecError> {
        serde_json::from_slice(bytes).map_err(CodecError::new)
    }
}

#[cfg(all(test, not(larder_shuttle)))]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::{Arc, Codec, Postcard, RawBytes};

    fn round<V: PartialEq + std::fmt::Debug>(codec: &impl Codec<V>, value: V) {
        let mut bytes = b"before".to_vec();
        codec.encode(&value, &mut bytes).unwrap();
        assert_eq!(codec.decode(&bytes[6..]).unwrap(), value);
    }

    #[test]
    fn values_come_back() {
        round(&RawBytes, "chair".to_owned());
        round(&RawBytes, vec![0xffu8, 0]);
        round::<Arc<str>>(&RawBytes, "chair".into());
        round(&Postcard, (7u64, "chair".to_owned(), vec![1u8, 2]));
        #[cfg(feature = "json")]
        round(&super::Json, (7u64, "chair".to_owned(), vec![1u8, 2]));
        assert!(Codec::<String>::decode(&RawBytes, &[0xff]).is_err());
    }

    #[test]
    fn bytes_that_lie_or_go_on_are_refused() {
        // A length of 2^60, and then nothing: an allocation of that would end the process.
        let lie = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10];
        assert!(Codec::<Vec<u64>>::decode(&Postcard, &lie).is_err());
        assert!(Codec::<String>::decode(&Postcard, &lie).is_err());
        assert!(Codec::<u8>::decode(&Postcard, &[1, 2]).is_err());
        assert!(Codec::<u8>::decode(&Postcard, &[]).is_err());
    }
}
