//! How many entries a cache may hold: a number, or a share of the keys that a trace has.

use std::{fmt, str::FromStr};

/// As it was asked for; a share means something only beside a trace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Capacity {
    /// So many entries.
    Entries(u64),
    /// Percent of the trace's distinct keys.
    Percent(f64),
}

impl Capacity {
    /// In entries; a share is rounded to the nearest, and is one entry at least.
    #[must_use]
    pub fn entries(self, distinct: u32) -> u64 {
        match self {
            Self::Entries(entries) => entries,
            // Float to integer saturates, and a share is at most `distinct` anyway.
            Self::Percent(percent) => {
                ((f64::from(distinct) * percent / 100.0).round() as u64).max(1)
            }
        }
    }
}

impl FromStr for Capacity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str =
            "expected entries like 10000, or a share of the distinct keys like 1%";
        if let Some(number) = text.strip_suffix('%') {
            let percent: f64 = number
                .trim_end()
                .parse()
                .map_err(|_| format!("'{number}' is no number; {EXPECTED}"))?;
            if percent > 0.0 && percent <= 100.0 {
                Ok(Self::Percent(percent))
            } else {
                Err("a share lies above 0% and is at most 100%".to_owned())
            }
        } else {
            match text.parse() {
                Ok(0) => Err("a cache of 0 entries holds nothing; give 1 or more".to_owned()),
                Ok(entries) => Ok(Self::Entries(entries)),
                Err(_) => Err(format!("'{text}' is no whole number; {EXPECTED}")),
            }
        }
    }
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entries(entries) => write!(f, "{entries}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Capacity;

    #[test]
    fn a_capacity_is_a_number_or_a_share() {
        let parse = |text: &str| text.parse::<Capacity>();
        assert_eq!(parse("18688"), Ok(Capacity::Entries(18_688)));
        assert_eq!(parse("0.1%"), Ok(Capacity::Percent(0.1)));
        assert_eq!(parse("100 %"), Ok(Capacity::Percent(100.0)));
        for bad in [
            "", "%", "0", "0%", "-1", "-1%", "101%", "NaN%", "inf%", "1k", "1e3", "1.5",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse("0").unwrap_err().contains("1 or more"));
    }

    #[test]
    fn a_share_is_rounded_to_the_nearest_and_never_to_nothing() {
        for (percent, distinct, entries) in [
            (1.0, 186_880, 1_869),
            (10.0, 186_880, 18_688),
            (1.0, 34_036, 340),
            (10.0, 34_036, 3_404),
            (1.0, 10, 1),
            (100.0, u32::MAX, u64::from(u32::MAX)),
        ] {
            assert_eq!(
                Capacity::Percent(percent).entries(distinct),
                entries,
                "{percent} {distinct}"
            );
        }
        assert_eq!(Capacity::Entries(7).entries(3), 7);
    }

    #[test]
    fn it_is_shown_as_it_was_asked_for() {
        for text in ["18688", "0.1%", "1%", "100%"] {
            assert_eq!(text.parse::<Capacity>().unwrap().to_string(), text);
        }
    }
}
