//! Which files a query has taken: each at most once.
//!
//! As Spark's `SeenFilesMap`: files much older than the newest one seen are forgotten, and from then
//! on ignored, so that the map does not grow for ever.

use std::collections::HashMap;

/// The files a query has taken, by URL or by name, with their modification times.
#[derive(Debug)]
pub(super) struct SeenFiles {
    files: HashMap<Box<str>, i64>,
    /// The newest modification time seen, in milliseconds.
    newest: i64,
    /// Files older than this are ignored.
    horizon: i64,
    max_age: Option<i64>,
    by_name: bool,
}

impl SeenFiles {
    /// Nothing seen; `max_age` in milliseconds, `by_name` for `fileNameOnly`.
    pub(super) fn new(max_age: Option<i64>, by_name: bool) -> Self {
        Self {
            files: HashMap::new(),
            newest: 0,
            horizon: 0,
            max_age,
            by_name,
        }
    }

    /// True when the file has not been taken and is not too old.
    pub(super) fn is_new(&self, url: &str, modified: i64) -> bool {
        modified >= self.horizon && !self.files.contains_key(self.key(url))
    }

    /// The file is taken.
    pub(super) fn add(&mut self, url: &str, modified: i64) {
        self.newest = self.newest.max(modified);
        self.files.insert(self.key(url).into(), modified);
    }

    /// Forgets what is too old; to be called when a micro-batch's files are all added.
    pub(super) fn purge(&mut self) {
        let Some(max_age) = self.max_age else {
            return;
        };
        let horizon = self.newest.saturating_sub(max_age);
        if horizon > self.horizon {
            self.horizon = horizon;
            self.files.retain(|_, modified| *modified >= horizon);
        }
    }

    /// From now on no file is too old: what the log of a sink names counts, however old it is.
    pub(super) fn forget_none(&mut self) {
        self.max_age = None;
        self.horizon = i64::MIN;
    }

    fn key<'a>(&self, url: &'a str) -> &'a str {
        match url.rsplit_once('/') {
            Some((_, name)) if self.by_name => name,
            _ => url,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_files_are_ignored_after_the_first_batch() {
        let mut seen = SeenFiles::new(Some(10), false);
        assert!(seen.is_new("old", 1));
        for (url, at) in [("a", 5), ("b", 30)] {
            seen.add(url, at);
        }
        seen.purge();
        for (url, at, new) in [
            ("old", 1, false),
            ("a", 5, false),
            ("c", 20, true),
            ("b", 30, false),
        ] {
            assert_eq!(seen.is_new(url, at), new, "{url}");
        }
    }

    #[test]
    fn names_alone_count_when_asked() {
        for (by_name, new) in [(true, false), (false, true)] {
            let mut seen = SeenFiles::new(None, by_name);
            seen.add("file:///a/x.csv", 1);
            assert_eq!(seen.is_new("file:///b/x.csv", 2), new);
        }
    }
}
