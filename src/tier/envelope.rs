//! The envelope around every content of the shared tier: what it is, for which key, until when, and that it is whole.
//!
//! Little endian. At the same place in every version: the magic (0 to 4), the format's version (4), the content id (8
//! to 24), which scripts on the server compare. Then what `Envelope` lists, the tags, the payload, and a checksum of it
//! all.
//!
//! Whoever can write to the server can write a checksum: it finds damage, not forgery. But nothing here, whatever
//! the bytes, panics, or allocates more than the list of tags, whose length is held against the bytes that are there.

use std::error::Error;
use std::fmt;
use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

/// Where a content's id is.
pub(crate) const CONTENT_ID: Range<usize> = 8..24;

const MAGIC: [u8; 4] = *b"LRDR";
const VERSION: u8 = 1;
/// Up to the tags.
const HEADER: usize = 70;
const CHECKSUM: usize = 8;

/// What tells one content from every other that was ever stored under its key: sixteen bytes that are drawn anew for
/// each.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentId(pub [u8; 16]);

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentId({:032x})", u128::from_be_bytes(self.0))
    }
}

/// The id of a content, if it is long enough to have one. Nothing else is looked at.
pub(crate) fn content_id_of(content: &[u8]) -> Option<ContentId> {
    let content_id = content.get(CONTENT_ID)?;
    Some(ContentId(content_id.try_into().ok()?))
}

/// What a content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Somebody loads.
    Placeholder = 0,
    Value = 1,
    /// It is known that there is no value.
    Absent = 2,
}

/// A content, its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Envelope<'a> {
    pub(crate) kind: Kind,
    pub(crate) codec: u8,
    /// The user's version of the value's type.
    pub(crate) schema: u32,
    pub(crate) content_id: ContentId,
    /// Milliseconds since 1970, like the next two.
    pub(crate) created: u64,
    /// `u64::MAX` for never.
    pub(crate) expires: u64,
    pub(crate) stale_until: u64,
    /// Microseconds that it took to make the value.
    pub(crate) load_time: u32,
    /// The versions for which it is valid.
    pub(crate) tags: Vec<(&'a str, u64)>,
    pub(crate) payload: &'a [u8],
}

/// What is refused before anything is allocated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EnvelopeLimits {
    /// Bytes.
    pub(crate) payload: usize,
    pub(crate) tags: usize,
    /// Bytes of one.
    pub(crate) tag_name: usize,
}

impl Default for EnvelopeLimits {
    fn default() -> Self {
        EnvelopeLimits {
            payload: 64 << 20,
            // An entry's own tags, its namespace, and everything.
            tags: crate::entry::EntryOptions::MAX_TAGS + 2,
            tag_name: 1024,
        }
    }
}

/// What is wrong with a content.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// It is shorter than any content.
    TooShort,
    /// It does not begin as a content of larder's does.
    Magic,
    /// It is of another version of the format.
    Version(u8),
    /// It is damaged.
    Checksum,
    /// It is of a kind that this version does not know.
    Kind(u8),
    /// It has flags that this version does not know.
    Flags(u8),
    /// It is of another key.
    Key,
    /// Its parts do not add up to its length, or its times to a life.
    Length,
    /// Its tags cannot be read, or are too many or too long.
    Tags,
    /// Its payload is over the limit.
    TooLarge {
        /// The payload's bytes.
        length: usize,
        /// The most.
        limit: usize,
    },
}

impl fmt::Display for EnvelopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EnvelopeError::TooShort => f.write_str("the content is cut short: it is loaded again"),
            EnvelopeError::Magic => {
                f.write_str("the content is not larder's: give larder a prefix of its own")
            }
            EnvelopeError::Version(version) => write!(
                f,
                "the content is of format {version}, and this is {VERSION}: run one version of larder a prefix"
            ),
            EnvelopeError::Checksum => f.write_str("the content is damaged: it is loaded again"),
            EnvelopeError::Kind(kind) => write!(
                f,
                "the content is of kind {kind}, which this version does not know: upgrade larder"
            ),
            EnvelopeError::Flags(flags) => write!(
                f,
                "the content has flags {flags:#x}, which this version does not know: upgrade larder"
            ),
            EnvelopeError::Key => {
                f.write_str("the content is another key's: something mixes answers up, look at proxies")
            }
            EnvelopeError::Length => {
                f.write_str("the content's parts do not add up: it is loaded again")
            }
            EnvelopeError::Tags => f.write_str(
                "the content's tags cannot be read, or are too many or too long: use fewer, shorter tags",
            ),
            EnvelopeError::TooLarge { length, limit } => write!(
                f,
                "the value takes {length} bytes, and {limit} are allowed: raise max_value_bytes, or store less"
            ),
        }
    }
}

impl Error for EnvelopeError {}

impl<'a> Envelope<'a> {
    /// The bytes.
    pub(crate) fn encode(
        &self,
        key: &[u8],
        limits: &EnvelopeLimits,
    ) -> Result<Vec<u8>, EnvelopeError> {
        let payload = self.payload.len();
        if payload > limits.payload || u32::try_from(payload).is_err() {
            let limit = limits.payload.min(u32::MAX as usize);
            return Err(EnvelopeError::TooLarge {
                length: payload,
                limit,
            });
        }
        if self.tags.len() > limits.tags {
            return Err(EnvelopeError::Tags);
        }
        let names: usize = self.tags.iter().map(|(name, _)| 10 + name.len()).sum();
        let mut bytes = Vec::with_capacity(HEADER + names + payload + CHECKSUM);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[VERSION, self.kind as u8, self.codec, 0]);
        bytes.extend_from_slice(&self.content_id.0);
        bytes.extend_from_slice(&self.schema.to_le_bytes());
        bytes.extend_from_slice(&xxh3_64(key).to_le_bytes());
        bytes.extend_from_slice(&self.created.to_le_bytes());
        bytes.extend_from_slice(&self.expires.to_le_bytes());
        bytes.extend_from_slice(&self.stale_until.to_le_bytes());
        bytes.extend_from_slice(&self.load_time.to_le_bytes());
        let tags = u16::try_from(self.tags.len()).map_err(|_| EnvelopeError::Tags)?;
        bytes.extend_from_slice(&tags.to_le_bytes());
        bytes.extend_from_slice(&(payload as u32).to_le_bytes());
        for (name, version) in &self.tags {
            let length = u16::try_from(name.len()).map_err(|_| EnvelopeError::Tags)?;
            if name.len() > limits.tag_name {
                return Err(EnvelopeError::Tags);
            }
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(&version.to_le_bytes());
        }
        bytes.extend_from_slice(self.payload);
        let checksum = xxh3_64(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        Ok(bytes)
    }

    /// Reads the bytes that are stored under a key.
    pub(crate) fn decode(
        bytes: &'a [u8],
        key: &[u8],
        limits: &EnvelopeLimits,
    ) -> Result<Self, EnvelopeError> {
        Self::decode_with(bytes, key, limits, |sealed, checksum| {
            xxh3_64(sealed) == checksum
        })
    }

    fn decode_with(
        bytes: &'a [u8],
        key: &[u8],
        limits: &EnvelopeLimits,
        is_whole: impl FnOnce(&[u8], u64) -> bool,
    ) -> Result<Self, EnvelopeError> {
        if bytes.len() < HEADER + CHECKSUM {
            return Err(EnvelopeError::TooShort);
        }
        let (sealed, checksum) = bytes
            .split_last_chunk::<CHECKSUM>()
            .ok_or(EnvelopeError::TooShort)?;
        let mut reader = ContentReader(sealed);
        if reader.array::<4>()? != MAGIC {
            return Err(EnvelopeError::Magic);
        }
        let [version, kind, codec, flags] = reader.array()?;
        if version != VERSION {
            return Err(EnvelopeError::Version(version));
        }
        if !is_whole(sealed, u64::from_le_bytes(*checksum)) {
            return Err(EnvelopeError::Checksum);
        }
        if flags != 0 {
            return Err(EnvelopeError::Flags(flags));
        }
        let kind = match kind {
            0 => Kind::Placeholder,
            1 => Kind::Value,
            2 => Kind::Absent,
            other => return Err(EnvelopeError::Kind(other)),
        };
        let content_id = ContentId(reader.array()?);
        let schema = u32::from_le_bytes(reader.array()?);
        if u64::from_le_bytes(reader.array()?) != xxh3_64(key) {
            return Err(EnvelopeError::Key);
        }
        let created = u64::from_le_bytes(reader.array()?);
        let expires = u64::from_le_bytes(reader.array()?);
        let stale_until = u64::from_le_bytes(reader.array()?);
        let load_time = u32::from_le_bytes(reader.array()?);
        let tags = usize::from(u16::from_le_bytes(reader.array()?));
        let payload = u32::from_le_bytes(reader.array()?) as usize;
        if payload > limits.payload {
            return Err(EnvelopeError::TooLarge {
                length: payload,
                limit: limits.payload,
            });
        }
        let tags = reader.tags(tags, limits)?;
        if reader.0.len() != payload || stale_until < expires {
            return Err(EnvelopeError::Length);
        }
        Ok(Envelope {
            kind,
            codec,
            schema,
            content_id,
            created,
            expires,
            stale_until,
            load_time,
            tags,
            payload: reader.0,
        })
    }
}

/// What is left to read.
struct ContentReader<'a>(&'a [u8]);

impl<'a> ContentReader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], EnvelopeError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(EnvelopeError::Length)?;
        self.0 = rest;
        Ok(*array)
    }

    fn tags(
        &mut self,
        count: usize,
        limits: &EnvelopeLimits,
    ) -> Result<Vec<(&'a str, u64)>, EnvelopeError> {
        // A tag takes ten bytes at the least.
        if count > limits.tags || count > self.0.len() / 10 {
            return Err(EnvelopeError::Tags);
        }
        (0..count).map(|_| self.tag(limits)).collect()
    }

    fn tag(&mut self, limits: &EnvelopeLimits) -> Result<(&'a str, u64), EnvelopeError> {
        let length = usize::from(u16::from_le_bytes(self.array()?));
        if length > limits.tag_name {
            return Err(EnvelopeError::Tags);
        }
        let (name, rest) = self.0.split_at_checked(length).ok_or(EnvelopeError::Tags)?;
        self.0 = rest;
        let name = std::str::from_utf8(name).map_err(|_| EnvelopeError::Tags)?;
        Ok((name, u64::from_le_bytes(self.array()?)))
    }
}

#[cfg(all(test, not(larder_shuttle)))]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::{ContentId, Envelope, EnvelopeError, EnvelopeLimits, Kind, content_id_of, xxh3_64};
    use crate::util::rng::next_u64;

    const KEY: &[u8] = b"price:7";

    fn draw(below: u64) -> u64 {
        next_u64() % below
    }

    /// Envelopes of all kinds, with up to three tags and forty bytes.
    fn random(payload: &[u8]) -> Envelope<'_> {
        const NAMES: [&str; 4] = ["*", "#product:7", "", "#ä"];
        let created = next_u64() >> 20;
        let expires = created + draw(1 << 40);
        Envelope {
            kind: [Kind::Placeholder, Kind::Value, Kind::Absent][draw(3) as usize],
            codec: next_u64() as u8,
            schema: next_u64() as u32,
            content_id: ContentId(
                [next_u64().to_le_bytes(), next_u64().to_be_bytes()]
                    .concat()
                    .try_into()
                    .unwrap(),
            ),
            created,
            expires,
            stale_until: expires + draw(1 << 30),
            load_time: next_u64() as u32,
            tags: (0..draw(4))
                .map(|_| (NAMES[draw(4) as usize], next_u64()))
                .collect(),
            payload,
        }
    }

    fn bytes() -> Vec<u8> {
        (0..draw(40)).map(|_| next_u64() as u8).collect()
    }

    fn decode(bytes: &[u8]) -> Result<Envelope<'_>, EnvelopeError> {
        Envelope::decode(bytes, KEY, &EnvelopeLimits::default())
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for _ in 0..2_000 {
            let payload = bytes();
            let envelope = random(&payload);
            let encoded = envelope.encode(KEY, &EnvelopeLimits::default()).unwrap();
            assert_eq!(decode(&encoded).unwrap(), envelope);
            assert_eq!(content_id_of(&encoded), Some(envelope.content_id));
        }
    }

    /// Damages an envelope in every way; the first damage that a decoder takes for whole.
    fn first_unnoticed(takes: impl Fn(&[u8]) -> bool) -> Option<String> {
        let payload = bytes();
        let whole = random(&payload)
            .encode(KEY, &EnvelopeLimits::default())
            .unwrap();
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            if takes(&damaged) {
                return Some(format!("bit {bit} of {} bytes", whole.len()));
            }
        }
        for length in 0..whole.len() {
            if takes(&whole[..length]) {
                return Some(format!("cut to {length} of {} bytes", whole.len()));
            }
        }
        let longer = [&whole[..], &[0]].concat();
        takes(&longer).then(|| "a byte more".to_owned())
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        for _ in 0..1_000 {
            assert_eq!(first_unnoticed(|bytes| decode(bytes).is_ok()), None);
        }
    }

    #[test]
    fn a_decoder_that_skips_the_checksum_is_caught() {
        let limits = EnvelopeLimits::default();
        let careless =
            |bytes: &[u8]| Envelope::decode_with(bytes, KEY, &limits, |_, _| true).is_ok();
        assert!(first_unnoticed(careless).is_some());
    }

    #[test]
    fn another_keys_content_and_other_versions_are_told_apart() {
        let limits = EnvelopeLimits::default();
        let whole = random(b"x").encode(b"other", &limits).unwrap();
        assert_eq!(decode(&whole), Err(EnvelopeError::Key));
        let mut newer = random(b"x").encode(KEY, &limits).unwrap();
        newer[4] = 2;
        assert_eq!(decode(&newer), Err(EnvelopeError::Version(2)));
        assert_eq!(decode(&[b'x'; 100]), Err(EnvelopeError::Magic));
        assert_eq!(decode(b"LRDR"), Err(EnvelopeError::TooShort));
    }

    /// Writes a right checksum behind whatever is there.
    fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.truncate(bytes.len() - 8);
        let checksum = xxh3_64(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    #[test]
    fn lengths_that_lie_are_refused_before_anything_is_allocated() {
        let limits = EnvelopeLimits::default();
        let whole = Envelope {
            tags: vec![("*", 1)],
            ..random(b"payload")
        };
        let whole = whole.encode(KEY, &limits).unwrap();
        let lie = |at: usize, lie: &[u8]| {
            let mut bytes = whole.clone();
            bytes[at..at + lie.len()].copy_from_slice(lie);
            decode(&resealed(bytes)).unwrap_err()
        };
        assert_eq!(lie(64, &[0xff, 0xff]), EnvelopeError::Tags);
        assert_eq!(lie(66, &[6, 0, 0, 0]), EnvelopeError::Length);
        assert!(matches!(
            lie(66, &[0xff; 4]),
            EnvelopeError::TooLarge {
                length: 0xffff_ffff,
                ..
            }
        ));
        assert_eq!(lie(70, &[0xff, 0xff]), EnvelopeError::Tags);
        assert_eq!(lie(5, &[9]), EnvelopeError::Kind(9));
        assert_eq!(lie(7, &[1]), EnvelopeError::Flags(1));
        assert_eq!(
            lie(52, &[0; 8]),
            EnvelopeError::Length,
            "stale before expired"
        );
    }

    #[test]
    fn limits_hold_when_writing() {
        let limits = EnvelopeLimits {
            payload: 3,
            tags: 1,
            tag_name: 2,
        };
        let envelope = |tags: Vec<(&'static str, u64)>, payload| Envelope {
            tags,
            ..random(payload)
        };
        assert!(
            envelope(vec![("ab", 1)], b"abc")
                .encode(KEY, &limits)
                .is_ok()
        );
        for over in [
            envelope(vec![("abc", 1)], b""),
            envelope(vec![("a", 1), ("b", 1)], b""),
            envelope(vec![], b"abcd"),
        ] {
            assert!(over.encode(KEY, &limits).is_err());
        }
    }

    #[test]
    fn the_format_does_not_change_by_accident() {
        let envelope = Envelope {
            kind: Kind::Value,
            codec: 2,
            schema: 3,
            content_id: ContentId(*b"0123456789abcdef"),
            created: 4,
            expires: 5,
            stale_until: 6,
            load_time: 7,
            tags: vec![("#t", 8)],
            payload: b"value",
        };
        let bytes = envelope.encode(b"key", &EnvelopeLimits::default()).unwrap();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, GOLDEN);
    }

    const GOLDEN: &str = "4c524452010102003031323334353637383961626364656603000000e36551a0630deabb04000000000000000500\
        00000000000006000000000000000700000001000500000002002374080000000000000076616c756572b9f8d2791e52b5";
}
