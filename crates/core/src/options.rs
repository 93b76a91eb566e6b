//! Options as users type them, and how they become typed structs, once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::{Error, Interval, IntoInterval, Result};

/// A map of options whose names ignore case and `_`, as in Spark and in SQL.
///
/// A connector takes what it knows with [`take`](Self::take) and ends with [`finish`](Self::finish),
/// which refuses what nobody took and proposes the name that was probably meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Folded name → (name as typed, value).
    entries: BTreeMap<String, (String, String)>,
    /// The names that were asked for: what can be suggested.
    known: BTreeSet<&'static str>,
}

impl Options {
    /// No options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `name` to `value`; a later value replaces an earlier one.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<OptionValue>) {
        let name = name.into();
        self.entries.insert(fold(&name), (name, value.into().0));
    }

    /// Sets all of `other`'s options here.
    pub fn extend(&mut self, other: Self) {
        self.entries.extend(other.entries);
        self.known.extend(other.known);
    }

    /// The text of `name`, which stays in the map.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.entries.get(&fold(name)).map(|entry| entry.1.as_str())
    }

    /// True when nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The names and values that are left, as they were typed.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries
            .values()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Takes the text of `name` out of the map.
    pub fn take_str(&mut self, name: &'static str) -> Option<String> {
        self.known.insert(name);
        self.entries.remove(&fold(name)).map(|(_, value)| value)
    }

    /// Takes `name` out of the map and parses it.
    ///
    /// # Errors
    /// `Invalid`, naming the option and its value, when it does not parse.
    pub fn take<T>(&mut self, name: &'static str) -> Result<Option<T>>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let Some(text) = self.take_str(name) else {
            return Ok(None);
        };
        text.trim()
            .parse::<T>()
            .map(Some)
            .map_err(|e| bad(name, &text, &e.to_string()))
    }

    /// Takes `name` as a length of time: `5 seconds`, or a number of milliseconds.
    ///
    /// # Errors
    /// `Invalid`, naming the option and its value, when it is no length of time.
    pub fn take_interval(&mut self, name: &'static str) -> Result<Option<Interval>> {
        let Some(text) = self.take_str(name) else {
            return Ok(None);
        };
        text.as_str()
            .into_interval()
            .map(Some)
            .map_err(|e| bad(name, &text, e.message()))
    }

    /// Takes `name`, which must be a whole number greater than zero.
    ///
    /// # Errors
    /// `Invalid`, naming the option and its value.
    pub fn take_positive(&mut self, name: &'static str) -> Result<Option<u64>> {
        let Some(text) = self.take_str(name) else {
            return Ok(None);
        };
        match text.trim().parse::<u64>() {
            Ok(n) if n > 0 => Ok(Some(n)),
            _ => Err(bad(name, &text, "it must be a positive whole number")),
        }
    }

    /// Ends the taking: what is left is unknown to `owner` ("source `rate`").
    ///
    /// # Errors
    /// `Invalid`, naming the first option that is left and the name that was probably meant.
    pub fn finish(&self, owner: &str) -> Result<()> {
        let Some((folded, (name, _))) = self.entries.iter().next() else {
            return Ok(());
        };
        let error = Error::invalid(format!("unknown option `{name}` of {owner}")).with_option(name);
        Err(match self.suggest(folded) {
            Some(meant) => error.with_hint(format!("did you mean `{meant}`?")),
            None => error,
        })
    }

    fn suggest(&self, folded: &str) -> Option<&'static str> {
        self.known
            .iter()
            .map(|known| (strsim::damerau_levenshtein(&fold(known), folded), *known))
            .min()
            .filter(|(distance, known)| *distance <= 2.max(known.len() / 4))
            .map(|(_, known)| known)
    }
}

/// The error for an option whose value is wrong.
fn bad(name: &str, value: &str, why: &str) -> Error {
    Error::invalid(format!("option `{name}` is `{value}`: {why}")).with_option(name)
}

/// Case and `_` do not count.
fn fold(name: &str) -> String {
    name.chars()
        .filter(|c| *c != '_')
        .flat_map(char::to_lowercase)
        .collect()
}

impl<K: Into<String>, V: Into<OptionValue>, const N: usize> From<[(K, V); N]> for Options {
    fn from(pairs: [(K, V); N]) -> Self {
        pairs.into_iter().collect()
    }
}

impl<K: Into<String>, V: Into<OptionValue>> From<HashMap<K, V>> for Options {
    fn from(map: HashMap<K, V>) -> Self {
        map.into_iter().collect()
    }
}

impl<K: Into<String>, V: Into<OptionValue>> FromIterator<(K, V)> for Options {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut options = Self::new();
        for (name, value) in pairs {
            options.set(name, value);
        }
        options
    }
}

/// The value of an option: text, a number, a truth value or a length of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionValue(pub String);

macro_rules! option_value {
    ($($from:ty),*) => {
        $(impl From<$from> for OptionValue {
            fn from(value: $from) -> Self {
                Self(value.to_string())
            }
        })*
    };
}
option_value!(&str, &String, bool, i32, i64, u32, u64, usize, f64);

impl From<String> for OptionValue {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl From<Duration> for OptionValue {
    fn from(value: Duration) -> Self {
        Self(format!("{} microseconds", value.as_micros()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_ignore_case_and_underscores() {
        let mut options = Options::from([("max_files_per_trigger", 3)]);
        assert_eq!(
            options.take_positive("maxFilesPerTrigger").ok().flatten(),
            Some(3)
        );
        assert!(options.finish("source `csv`").is_ok());
    }

    #[test]
    fn a_typo_is_refused_with_the_name_that_was_meant() {
        let mut options = Options::from([("rowPerSecond", 3)]);
        assert_eq!(options.take_positive("rowsPerSecond").ok().flatten(), None);
        let error = options.finish("source `rate`").expect_err("refused");
        assert_eq!(
            error.message(),
            "unknown option `rowPerSecond` of source `rate`"
        );
        assert_eq!(error.option(), Some("rowPerSecond"));
        assert_eq!(error.hint(), Some("did you mean `rowsPerSecond`?"));
    }

    #[test]
    fn a_value_of_the_wrong_type_names_the_option() {
        let mut options = Options::from([("header", "maybe")]);
        let error = options.take::<bool>("header").expect_err("refused");
        assert_eq!(error.option(), Some("header"));
    }
}
