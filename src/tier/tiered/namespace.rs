//! Namespaces: where a key lies in the shared tier, and which versions what lies there depends on.
//!
//! A key's bytes there begin with its namespace: `:key` outside of any, `3:red:key` in that called `red`. So no two
//! keys of different namespaces have the same bytes, whatever the names.

use std::borrow::Cow;
use std::hash::Hash;

use super::Tiered;
use super::versions::{EVERYTHING, name_of, name_of_namespace};
use crate::tier::key::{FromTierKey, TierKey};

/// A key's bytes in the shared tier.
pub(super) fn qualified_key(namespace: Option<&str>, key: &[u8]) -> Vec<u8> {
    match namespace {
        None => [b":", key].concat(),
        Some(name) => [format!("{}:{name}:", name.len()).as_bytes(), key].concat(),
    }
}

/// The namespace, and the key's own bytes; `None` if nothing of ours lies there.
pub(super) fn split_key(qualified_key: &[u8]) -> Option<(Option<&str>, &[u8])> {
    let colon = qualified_key.iter().position(|byte| *byte == b':')?;
    let (digits, rest) = (&qualified_key[..colon], &qualified_key[colon + 1..]);
    if digits.is_empty() {
        return Some((None, rest));
    }
    let length: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let (name, rest) = rest.split_at_checked(length)?;
    let key = rest.strip_prefix(b":")?;
    Some((Some(std::str::from_utf8(name).ok()?), key))
}

/// The names of the versions for which what lies here, under these tags, is valid.
pub(super) fn names<'a>(
    qualified_key: &[u8],
    tags: impl Iterator<Item = &'a str>,
) -> Vec<Box<str>> {
    let namespace = split_key(qualified_key).and_then(|(namespace, _)| namespace);
    let mut names = vec![Box::from(EVERYTHING)];
    names.extend(namespace.map(name_of_namespace));
    names.extend(tags.map(name_of));
    names
}

impl<K, V> Tiered<K, V>
where
    K: Hash + Eq + Clone + FromTierKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// A view of this cache under a name: its keys are its own, in every process, and
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
            namespace: Some(name.into()),
        }
    }

    pub(super) fn qualified_key<Q: TierKey + ?Sized>(&self, key: &Q) -> Vec<u8> {
        let bytes: Cow<'_, [u8]> = key.to_tier();
        qualified_key(self.namespace.as_deref(), &bytes)
    }
}

#[cfg(all(test, not(larder_shuttle)))]
mod tests {
    use super::{qualified_key, split_key};

    #[test]
    fn places_come_apart_as_they_were_put_together() {
        let names = [None, Some(""), Some("a"), Some("1:a"), Some(":"), Some("ä")];
        let keys = [&b""[..], b":", b"a", b"1:a:b", b":a", &[0xff, 0]];
        let mut seen = std::collections::BTreeSet::new();
        for name in names {
            for key in keys {
                let qualified_key = qualified_key(name, key);
                assert_eq!(split_key(&qualified_key), Some((name, key)));
                assert!(seen.insert(qualified_key), "{name:?} {key:?}");
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
            assert_eq!(split_key(odd), None, "{odd:?}");
        }
    }
}
