//! Reading a trace: the keys as they are, for larder, and renumbered from 0, for the simulators.

use std::{
    collections::HashMap,
    fs::File,
    hash::Hash,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    sync::Arc,
};

use clap::ValueEnum;
use larder::DefaultHashBuilder;

use crate::error::TraceError;

/// How the keys of a trace are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Unsigned integers of 8 bytes, little-endian, nothing between them
    U64,
    /// One key a line, in UTF-8; equal lines are equal keys
    Text,
}

/// The keys in the order of the requests.
#[derive(Debug)]
pub enum Keys {
    U64(Vec<u64>),
    /// Equal keys share their text.
    Text(Vec<Arc<str>>),
}

/// A list of requests; never empty.
#[derive(Debug)]
pub struct Trace {
    pub name: String,
    pub keys: Keys,
    /// The same requests, each key replaced by its rank of first appearance.
    pub ids: Vec<u32>,
    /// Different keys.
    pub distinct: u32,
}

impl Trace {
    /// Reads a file, or standard input for `-`. The name is the file's, without its directory.
    ///
    /// # Errors
    /// [`TraceError`], which names the trace as it was given and the place in it.
    pub fn open(path: &Path, format: Format) -> Result<Self, TraceError> {
        if path == Path::new("-") {
            return Self::read("standard input", io::stdin().lock(), format);
        }
        let trace = path.display().to_string();
        let file = File::open(path).map_err(|source| TraceError::Open {
            trace: trace.clone(),
            source,
        })?;
        let mut read = Self::read(&trace, BufReader::new(file), format)?;
        if let Some(name) = path.file_name() {
            read.name = name.to_string_lossy().into_owned();
        }
        Ok(read)
    }

    /// Reads from anywhere.
    ///
    /// # Errors
    /// As [`Trace::open`].
    pub fn read(name: &str, input: impl BufRead, format: Format) -> Result<Self, TraceError> {
        let (keys, ids, distinct) = match format {
            Format::U64 => {
                let keys = read_u64(name, input)?;
                let (ids, distinct) = number(name, keys.iter().copied())?;
                (Keys::U64(keys), ids, distinct)
            }
            Format::Text => {
                let keys = read_text(name, input)?;
                let (ids, distinct) = number(name, keys.iter().map(Arc::clone))?;
                (Keys::Text(keys), ids, distinct)
            }
        };
        if ids.is_empty() {
            return Err(TraceError::Empty {
                trace: name.to_owned(),
            });
        }
        Ok(Self {
            name: name.to_owned(),
            keys,
            ids,
            distinct,
        })
    }
}

fn failed(trace: &str) -> impl Fn(io::Error) -> TraceError + '_ {
    move |source| TraceError::Read {
        trace: trace.to_owned(),
        source,
    }
}

fn read_u64(trace: &str, mut input: impl Read) -> Result<Vec<u64>, TraceError> {
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes).map_err(failed(trace))?;
    let left = bytes.len() % size_of::<u64>();
    if left > 0 {
        return Err(TraceError::Truncated {
            trace: trace.to_owned(),
            offset: (bytes.len() - left) as u64,
            left,
        });
    }
    let keys = bytes.chunks_exact(size_of::<u64>());
    // A chunk is as long as the array it is turned into.
    Ok(keys
        .map(|key| u64::from_le_bytes(std::array::from_fn(|at| key[at])))
        .collect())
}

fn read_text(trace: &str, mut input: impl BufRead) -> Result<Vec<Arc<str>>, TraceError> {
    let mut keys = Vec::new();
    let mut known: HashMap<Arc<str>, (), DefaultHashBuilder> = HashMap::default();
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        if input.read_until(b'\n', &mut bytes).map_err(failed(trace))? == 0 {
            break;
        }
        let malformed = |found: String| TraceError::Line {
            trace: trace.to_owned(),
            line,
            found,
        };
        let key = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let key = key.strip_suffix(b"\r").unwrap_or(key);
        let key = std::str::from_utf8(key).map_err(|error| {
            malformed(format!("no UTF-8 from byte {} on", error.valid_up_to() + 1))
        })?;
        if key.is_empty() {
            return Err(malformed("empty".to_owned()));
        }
        let key = match known.get_key_value(key) {
            Some((key, ())) => Arc::clone(key),
            None => {
                let key = Arc::<str>::from(key);
                known.insert(Arc::clone(&key), ());
                key
            }
        };
        keys.push(key);
    }
    Ok(keys)
}

/// Each key's rank of first appearance, and how many there are.
fn number<K: Hash + Eq>(
    trace: &str,
    keys: impl ExactSizeIterator<Item = K>,
) -> Result<(Vec<u32>, u32), TraceError> {
    // Room is left for a number that no request has (`NEVER` of the optimum).
    if keys.len() >= u32::MAX as usize {
        return Err(TraceError::TooLong {
            trace: trace.to_owned(),
        });
    }
    let mut known: HashMap<K, u32, DefaultHashBuilder> = HashMap::default();
    let mut ids = Vec::with_capacity(keys.len());
    for key in keys {
        let next = known.len() as u32;
        ids.push(*known.entry(key).or_insert(next));
    }
    Ok((ids, known.len() as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(input: &[u8]) -> Result<Trace, TraceError> {
        Trace::read("t", input, Format::Text)
    }

    fn message(result: Result<Trace, TraceError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn keys_are_numbered_by_first_appearance() {
        let bytes: Vec<u8> = [9_u64, u64::MAX, 9, 0]
            .iter()
            .flat_map(|key| key.to_le_bytes())
            .collect();
        let trace = Trace::read("t", &bytes[..], Format::U64).unwrap();
        assert_eq!((trace.ids, trace.distinct), (vec![0, 1, 0, 2], 3));
        assert!(matches!(&trace.keys, Keys::U64(keys) if keys[..] == [9, u64::MAX, 9, 0]));
    }

    #[test]
    fn equal_lines_are_equal_keys_however_they_end() {
        let trace = text("/a b\nschön\r\n/a b\r\nschön".as_bytes()).unwrap();
        assert_eq!((trace.ids, trace.distinct), (vec![0, 1, 0, 1], 2));
        let Keys::Text(keys) = &trace.keys else {
            panic!("text")
        };
        assert_eq!((&*keys[0], &*keys[1]), ("/a b", "schön"));
        assert!(Arc::ptr_eq(&keys[0], &keys[2]));
    }

    #[test]
    fn a_malformed_line_is_named_with_what_was_expected() {
        let said = message(text(b"a\n\nb\n"));
        assert!(
            said.contains("t: line 2: empty; expected one key"),
            "{said}"
        );
        let said = message(text(b"a\nb\nc\xff\n"));
        assert!(
            said.contains("line 3: no UTF-8 from byte 2 on; expected"),
            "{said}"
        );
    }

    #[test]
    fn a_key_cut_short_is_named_with_its_offset() {
        let said = message(Trace::read("t", &[0; 19][..], Format::U64));
        assert!(
            said.contains("3 byte(s) at offset 16; expected keys of 8 bytes"),
            "{said}"
        );
    }

    #[test]
    fn a_trace_without_requests_is_refused() {
        for format in [Format::U64, Format::Text] {
            let said = message(Trace::read("t", &b""[..], format));
            assert!(said.contains("t: has no requests"), "{said}");
        }
    }
}
