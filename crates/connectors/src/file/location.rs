//! Where the files are: a path or a URL, with or without wildcards, in an object store.
//!
//! ```text
//!  s3://bucket/in/2024-*/part?.csv
//!  ─────────── ── ───────────────
//!  store       base   patterns, one for each part of the path
//! ```
//!
//! A path that names a folder means the files in it; so does a wildcard that matches a folder.

use std::path::{self, Component};
use std::sync::Arc;

use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use glob::{MatchOptions, Pattern};
use highwater_core::{Error, Result};
use highwater_storage::DurableStore;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// A place that files are listed from.
#[derive(Clone, Debug)]
pub(super) struct Location {
    /// The store.
    pub(super) store: Arc<dyn ObjectStore>,
    /// The store's name in the runtime: `file:///`, `s3://bucket/`.
    pub(super) url: ObjectStoreUrl,
    /// The path up to the first wildcard.
    pub(super) base: Path,
    /// The patterns after the base, one list for each alternative of `{a,b}`; one empty list without wildcards.
    patterns: Vec<Vec<Pattern>>,
    /// What the user wrote.
    pub(super) display: String,
    local: bool,
}

/// How wildcards match: `*` stays inside a name, and hidden names need no dot of their own.
const MATCH: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// What is percent-encoded in the URLs of files.
const ENCODED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'?')
    .add(b'`');

impl Location {
    /// Understands `text`; nothing is read yet.
    ///
    /// # Errors
    /// `Invalid` when the path or its wildcards are wrong, or no store is registered for the URL.
    pub(super) fn parse(text: &str, runtime: &RuntimeEnv) -> Result<Self> {
        let (root, parts) = split(text)?;
        let url = ObjectStoreUrl::parse(&root)
            .map_err(|e| Error::invalid(format!("`{text}` is no path")).with_source(e))?;
        let store = runtime.object_store(&url).map_err(|e| {
            Error::invalid(format!("no object store is registered for `{root}`"))
                .with_hint("register one on the session's runtime first")
                .with_source(e)
        })?;
        let fixed = parts.iter().take_while(|part| !is_wild(part)).count();
        let base = Path::parse(parts[..fixed].join("/"))
            .map_err(|e| Error::invalid(format!("`{text}` is no path")).with_source(e))?;
        let patterns = alternatives(&parts[fixed..].join("/"))
            .iter()
            .map(|pattern| pattern_parts(pattern, text))
            .collect::<Result<_>>()?;
        let local = root == "file://";
        Ok(Self {
            store,
            url,
            base,
            patterns,
            display: text.to_owned(),
            local,
        })
    }

    /// The same place, in a store whose answers outlive the loss of power. Stores of clouds are as they are.
    ///
    /// # Errors
    /// `Unsupported` for a place in memory.
    pub(super) fn durable(mut self) -> Result<Self> {
        if self.url.as_str().starts_with("memory://") {
            let display = &self.display;
            return Err(Error::unsupported(format!(
                "`{display}` is in memory, which no flush makes durable"
            ))
            .with_option("durability")
            .with_hint("choose a folder of a disk or of an object store"));
        }
        if self.local {
            self.store = Arc::new(DurableStore::new());
        }
        Ok(self)
    }

    /// Makes the folder `name` in the base and flushes all that is in the base, where this is a local disk: what
    /// [`durable`](Self::durable) adds to is then as durable as what it adds.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) async fn settle(&self, name: &str) -> Result<()> {
        if !self.local {
            return Ok(());
        }
        self.make_folder(name).await?;
        let settled = DurableStore::open_shared(self.local_base().into()).await;
        settled.map(drop).map_err(|e| {
            let display = &self.display;
            Error::from(e).context(format_args!(
                "folder `{display}` cannot be flushed to the disk"
            ))
        })
    }

    /// True when the path has wildcards.
    pub(super) fn is_glob(&self) -> bool {
        self.patterns.iter().any(|parts| !parts.is_empty())
    }

    /// True when every file that can match lies directly in the base.
    pub(super) fn is_flat(&self) -> bool {
        !self.is_glob()
    }

    /// True for the local disk, whose etags change when a folder is copied.
    pub(super) fn is_local(&self) -> bool {
        self.local
    }

    /// True when the path, without wildcards, is itself a file.
    pub(super) async fn is_file(&self) -> bool {
        if self.is_glob() {
            return false;
        }
        if self.local {
            return tokio::fs::metadata(self.local_base())
                .await
                .is_ok_and(|m| m.is_file());
        }
        self.store.head(&self.base).await.is_ok()
    }

    /// True when there is a folder of this path, even an empty one, where the store knows of such.
    pub(super) async fn is_folder(&self) -> bool {
        self.local
            && tokio::fs::metadata(self.local_base())
                .await
                .is_ok_and(|m| m.is_dir())
    }

    /// True when the base has a folder `name`, even an empty one, where the store knows of such.
    pub(super) async fn has_folder(&self, name: &str) -> bool {
        let folder = format!("{}/{name}", self.local_base());
        self.local && tokio::fs::metadata(folder).await.is_ok_and(|m| m.is_dir())
    }

    /// Makes the folder `name` in the base, where the store knows of empty ones.
    ///
    /// # Errors
    /// What the system says.
    pub(super) async fn make_folder(&self, name: &str) -> Result<()> {
        if self.local {
            tokio::fs::create_dir_all(format!("{}/{name}", self.local_base())).await?;
        }
        Ok(())
    }

    fn local_base(&self) -> String {
        format!("/{}", self.base)
    }

    /// The place as Spark shows it: `file:/data/in`.
    pub(super) fn shown(&self) -> String {
        let pattern = self
            .display
            .rsplit_once(self.base.as_ref())
            .map_or("", |(_, rest)| rest);
        let root = if self.local {
            "file:/"
        } else {
            self.url.as_str()
        };
        format!("{root}{}{}", self.base, pattern.trim_end_matches('/'))
    }

    /// How many parts of `relative` (a path below the base) the wildcards take up.
    pub(super) fn matched(&self, relative: &[&str]) -> Option<usize> {
        self.patterns
            .iter()
            .filter(|parts| parts.len() <= relative.len())
            .find(|parts| {
                parts
                    .iter()
                    .zip(relative)
                    .all(|(pattern, name)| pattern.matches_with(name, MATCH))
            })
            .map(Vec::len)
    }

    /// True when `other` lies where this place's files could be, compared down to the shallower of both.
    pub(super) fn overlaps(&self, other: &Path) -> bool {
        let base: Vec<_> = self.base.parts().collect();
        let other: Vec<_> = other.parts().collect();
        let common = base.len().min(other.len());
        if base[..common] != other[..common] {
            return false;
        }
        let rest: Vec<&str> = other[common..].iter().map(AsRef::as_ref).collect();
        self.patterns.iter().any(|parts| {
            parts
                .iter()
                .zip(&rest)
                .all(|(pattern, name)| pattern.matches_with(name, MATCH))
        })
    }

    /// The URL of a file in this store: `file:///in/a%20b.csv`.
    pub(super) fn url_of(&self, path: &Path) -> String {
        let encoded = utf8_percent_encode(path.as_ref(), ENCODED);
        format!("{}{encoded}", self.url.as_str())
    }

    /// The path in this store of a URL that [`url_of`](Self::url_of) gave.
    ///
    /// # Errors
    /// `Corrupt` when the URL is of another store.
    pub(super) fn path_of(&self, url: &str) -> Result<Path> {
        let other = || Error::corrupt(format!("file `{url}` is not in `{}`", self.url.as_str()));
        let rest = url.strip_prefix(self.url.as_str()).ok_or_else(other)?;
        let decoded = percent_decode_str(rest)
            .decode_utf8()
            .map_err(|e| other().with_source(e))?;
        Path::parse(decoded.as_ref()).map_err(|e| other().with_source(e))
    }
}

/// The root of the store (`file://`, `s3://bucket`) and the parts of the path.
fn split(text: &str) -> Result<(String, Vec<String>)> {
    let empty = || Error::invalid("the path is empty").with_hint("give one with `load(path)`");
    if text.trim().is_empty() {
        return Err(empty());
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let root = format!("{}://{host}", scheme.to_ascii_lowercase());
        return Ok((root, decoded_parts(path)?));
    }
    if let Some(path) = text.strip_prefix("file:/") {
        return Ok(("file://".to_owned(), decoded_parts(path)?));
    }
    let absolute = path::absolute(text)
        .map_err(|e| Error::invalid(format!("`{text}` is no path")).with_source(e))?;
    let mut parts = Vec::new();
    for component in absolute.components() {
        match component {
            Component::Normal(name) => parts.push(
                name.to_str()
                    .ok_or_else(|| Error::invalid(format!("`{text}` is not UTF-8")))?
                    .to_owned(),
            ),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    Ok(("file://".to_owned(), parts))
}

fn decoded_parts(path: &str) -> Result<Vec<String>> {
    let decoded = percent_decode_str(path)
        .decode_utf8()
        .map_err(|e| Error::invalid(format!("`{path}` is not UTF-8")).with_source(e))?;
    let parts = decoded.split('/').filter(|part| !part.is_empty());
    Ok(parts.map(str::to_owned).collect())
}

fn is_wild(part: &str) -> bool {
    part.contains(['*', '?', '[', '{'])
}

/// Writes `{a,b}` out: `x{a,b}y` is `xay` and `xby`.
fn alternatives(pattern: &str) -> Vec<String> {
    let Some(open) = pattern.find('{') else {
        return vec![pattern.to_owned()];
    };
    let Some(close) = pattern[open..].find('}').map(|at| open + at) else {
        return vec![pattern.to_owned()];
    };
    pattern[open + 1..close]
        .split(',')
        .flat_map(|one| {
            alternatives(&format!(
                "{}{one}{}",
                &pattern[..open],
                &pattern[close + 1..]
            ))
        })
        .collect()
}

fn pattern_parts(pattern: &str, text: &str) -> Result<Vec<Pattern>> {
    pattern
        .split('/')
        .filter(|part| !part.is_empty())
        .map(|part| {
            Pattern::new(part).map_err(|e| {
                Error::invalid(format!("the wildcards of `{text}` are wrong")).with_source(e)
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(text: &str) -> Location {
        Location::parse(text, &RuntimeEnv::default()).expect(text)
    }

    #[test]
    fn urls_of_files_go_there_and_back() {
        let at = location("/data/in");
        for (path, url) in [
            ("data/in/a.csv", "file:///data/in/a.csv"),
            ("data/in/a b%.csv", "file:///data/in/a%20b%25.csv"),
        ] {
            let path = Path::parse(path).expect("path");
            assert_eq!(at.url_of(&path), url);
            assert_eq!(at.path_of(url).ok(), Some(path));
        }
        assert!(at.path_of("s3://bucket/data/in/a.csv").is_err());
    }

    #[test]
    fn wildcards_match_parts_of_the_path() {
        for (pattern, below, expected) in [
            ("/d/*.csv", &["a.csv"][..], Some(1)),
            ("/d/*.csv", &["a.json"], None),
            ("/d/20??-*", &["2024-05", "a.csv"], Some(1)),
            ("/d/{x,y}/*", &["y", "a.csv"], Some(2)),
            ("/d/{x,y}/*", &["z", "a.csv"], None),
            ("/d/[ab]", &["b", "c"], Some(1)),
            ("/d", &["a", "b"], Some(0)),
        ] {
            assert_eq!(location(pattern).matched(below), expected, "{pattern}");
        }
    }

    #[test]
    fn an_archive_must_not_lie_in_the_source() {
        for (source, archive, overlaps) in [
            ("/in", "in/done", true),
            ("/in", "done", false),
            ("/in/a", "in", true),
            ("/h?/spark/*", "archived/here", false),
            ("/h?/spark/*", "h1/spark/archive", true),
        ] {
            let archive = Path::parse(archive).expect("path");
            assert_eq!(
                location(source).overlaps(&archive),
                overlaps,
                "{source} {archive}"
            );
        }
    }

    #[test]
    fn relative_parts_are_resolved() {
        assert_eq!(location("/a/../b/./c").base.as_ref(), "b/c");
        assert_eq!(location("file:/a/b").base.as_ref(), "a/b");
        assert!(Location::parse("s3://bucket/x", &RuntimeEnv::default()).is_err());
    }
}
