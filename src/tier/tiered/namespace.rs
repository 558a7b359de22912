//! Namespaces: where a key lies in the shared tier, and which versions what lies there depends on.
//!
//! A key's bytes there begin with its namespace: `:key` outside of any, `3:red:key` in that called `red`. So no two
//! keys of different namespaces have the same bytes, whatever the names.

use std::borrow::Cow;
use std::hash::Hash;

use super::Tiered;
use super::versions::{EVERYTHING, name_of, name_of_space};
use crate::tier::key::{FromTierKey, TierKey};

/// A key's bytes in the shared tier.
pub(super) fn place(space: Option<&str>, key: &[u8]) -> Vec<u8> {
    match space {
        None => [b":", key].concat(),
        Some(name) => [format!("{}:{name}:", name.len()).as_bytes(), key].concat(),
    }
}

/// The namespace, and the key's own bytes; `None` if nothing of ours lies there.
pub(super) fn parts(place: &[u8]) -> Option<(Option<&str>, &[u8])> {
    let colon = place.iter().position(|byte| *byte == b':')?;
    let (digits, rest) = (&place[..colon], &place[colon + 1..]);
    if digits.is_empty() {
        return Some((None, rest));
    }
    let length: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let (name, rest) = rest.split_at_checked(length)?;
    let key = rest.strip_prefix(b":")?;
    Some((Some(std::str::from_utf8(name).ok()?), key))
}

/// The names of the versions for which what lies here, under these tags, is valid.
pub(super) fn names<'a>(place: &[u8], tags: impl Iterator<Item = &'a str>) -> Vec<Box<str>> {
    let space = parts(place).and_then(|(space, _)| space);
    let mut names = vec![Box::from(EVERYTHING)];
    names.extend(space.map(name_of_space));
    names.extend(tags.map(name_of));
    names
}

impl<K, V> Tiered<K, V>
where
    K: Hash + Eq + Clone + FromTierKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// The same caches, seen through a namespace: its keys are its own, in every process, and
    /// [`clear`](Self::clear) clears it alone, by one command. Views do not nest: of a view, this gives its sibling.
    ///
    /// ```
    /// # use larder::tier::{MemoryServer, Tiered};
    /// # let cache: Tiered<String, u64> = Tiered::builder(MemoryServer::new().tier()).max_capacity(9).build()?;
    /// let red = cache.namespace("red");
    /// red.insert("a".to_owned(), 1)?;
    /// assert_eq!((red.get("a")?, cache.get("a")?), (Some(1), None));
    /// red.clear()?;
    /// assert_eq!(red.get("a")?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn namespace(&self, name: &str) -> Self {
        Tiered {
            inner: self.inner.clone(),
            scope: self.scope,
            l1: self.inner.l1.namespace(name),
            space: Some(name.into()),
        }
    }

    pub(super) fn place<Q: TierKey + ?Sized>(&self, key: &Q) -> Vec<u8> {
        let bytes: Cow<'_, [u8]> = key.to_tier();
        place(self.space.as_deref(), &bytes)
    }
}

#[cfg(all(test, not(larder_shuttle)))]
mod tests {
    use super::{parts, place};

    #[test]
    fn places_come_apart_as_they_were_put_together() {
        let names = [None, Some(""), Some("a"), Some("1:a"), Some(":"), Some("ä")];
        let keys = [&b""[..], b":", b"a", b"1:a:b", b":a", &[0xff, 0]];
        let mut seen = std::collections::BTreeSet::new();
        for name in names {
            for key in keys {
                let place = place(name, key);
                assert_eq!(parts(&place), Some((name, key)));
                assert!(seen.insert(place), "{name:?} {key:?}");
            }
        }
        for odd in [
            &b""[..],
            b"a",
            b"x:a",
            b"9:a:b",
            b"1:ab",
            b"99999999999999999999:a",
        ] {
            assert_eq!(parts(odd), None, "{odd:?}");
        }
    }
}
