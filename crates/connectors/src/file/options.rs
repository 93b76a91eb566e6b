//! The options that every file format shares, as a typed struct.
//!
//! Names, defaults and meanings are those of Spark's file source; what is only ours says so.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use highwater_core::{Error, Options, ReadLimit, Result};

/// What the file source is told, whatever the format.
///
/// Each format's options hold one of these in their field `files`, and have the same setters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSourceOptions {
    /// `maxFilesPerTrigger`: the most files in a micro-batch; none by default.
    pub max_files_per_trigger: Option<u64>,
    /// `maxBytesPerTrigger`: the most bytes in a micro-batch, but at least one file.
    pub max_bytes_per_trigger: Option<u64>,
    /// `latestFirst`: the newest files first; lists at every trigger.
    pub latest_first: bool,
    /// `maxFileAge`: files so much older than the newest one seen are ignored, after the first batch.
    pub max_file_age: Duration,
    /// `fileNameOnly`: two files of the same name are the same file, wherever they lie.
    pub file_name_only: bool,
    /// `pathGlobFilter`: only files whose name matches.
    pub path_glob_filter: Option<String>,
    /// `recursiveFileLookup`: files in folders below too, and no partition columns.
    pub recursive_file_lookup: bool,
    /// `cleanSource` and `sourceArchiveDir`: what becomes of files that a committed micro-batch read.
    pub clean_source: CleanSource,
    /// `pollInterval`: how often an idle query lists the path. Ours.
    pub poll_interval: Duration,
    /// `basePath`: partition columns are looked for below this path.
    pub base_path: Option<String>,
    /// `metadataColumn`: adds a last column `_metadata` with path, name, size and modification time.
    ///
    /// Ours: Spark has the column always, but hides it; DataFusion's tables have no hidden columns.
    pub metadata_column: bool,
    /// `schemaInference`: without a schema, look into the files that are there at the start.
    pub schema_inference: bool,
    /// `badFilesPath`: a file that cannot be decoded (no Parquet, a malformed row under FAILFAST, not UTF-8) is set
    /// aside: none of its rows is read, a line of JSON in `<badFilesPath>/bad_files/` says why, and the progress
    /// names it. The file stays where it is. Each file is held in memory until all of it is decoded. Ours.
    pub bad_files_path: Option<String>,
    /// `ignoreCorruptFiles`: a file is read as far as it can be decoded, and the progress names it. A malformed row
    /// under FAILFAST is an error all the same, and so is a store that does not answer.
    pub ignore_corrupt_files: bool,
    /// `ignoreMissingFiles`: a file that is gone since it was taken is passed over, and the progress names it.
    pub ignore_missing_files: bool,
}

impl Default for FileSourceOptions {
    fn default() -> Self {
        Self {
            max_files_per_trigger: None,
            max_bytes_per_trigger: None,
            latest_first: false,
            max_file_age: Duration::from_secs(7 * 24 * 3600),
            file_name_only: false,
            path_glob_filter: None,
            recursive_file_lookup: false,
            clean_source: CleanSource::Off,
            poll_interval: Duration::from_secs(1),
            base_path: None,
            metadata_column: false,
            schema_inference: false,
            bad_files_path: None,
            ignore_corrupt_files: false,
            ignore_missing_files: false,
        }
    }
}

impl FileSourceOptions {
    /// Spark's defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the shared options out of `options`.
    ///
    /// # Errors
    /// `Invalid` for a wrong value, `Unsupported` for an option that streams do not have; both name it.
    pub fn take(options: &mut Options) -> Result<Self> {
        refuse(options)?;
        let new = Self::default();
        let taken = Self {
            max_files_per_trigger: options.take_positive("maxFilesPerTrigger")?,
            max_bytes_per_trigger: options.take_positive("maxBytesPerTrigger")?,
            latest_first: options.take("latestFirst")?.unwrap_or(false),
            max_file_age: duration(options, "maxFileAge")?.unwrap_or(new.max_file_age),
            file_name_only: options.take("fileNameOnly")?.unwrap_or(false),
            path_glob_filter: options.take_str("pathGlobFilter"),
            recursive_file_lookup: options.take("recursiveFileLookup")?.unwrap_or(false),
            clean_source: CleanSource::take(options)?,
            poll_interval: duration(options, "pollInterval")?.unwrap_or(new.poll_interval),
            base_path: options.take_str("basePath"),
            metadata_column: options.take("metadataColumn")?.unwrap_or(false),
            schema_inference: take_alias(options, "schemaInference", "inferSchema")?
                .unwrap_or(false),
            bad_files_path: options.take_str("badFilesPath"),
            ignore_corrupt_files: options.take("ignoreCorruptFiles")?.unwrap_or(false),
            ignore_missing_files: options.take("ignoreMissingFiles")?.unwrap_or(false),
        };
        taken.check()?;
        Ok(taken)
    }

    fn check(&self) -> Result<()> {
        if self.max_files_per_trigger.is_some() && self.max_bytes_per_trigger.is_some() {
            return Err(Error::invalid(
                "options `maxFilesPerTrigger` and `maxBytesPerTrigger` exclude each other",
            )
            .with_option("maxBytesPerTrigger")
            .with_hint("give one of them"));
        }
        if self.bad_files_path.is_some() && self.ignore_corrupt_files {
            return Err(Error::invalid(
                "options `badFilesPath` and `ignoreCorruptFiles` exclude each other",
            )
            .with_option("ignoreCorruptFiles")
            .with_hint("the one leaves a bad file out, the other reads it as far as it goes"));
        }
        if self.poll_interval.is_zero() {
            return Err(
                Error::invalid("option `pollInterval` must be longer than 0")
                    .with_option("pollInterval"),
            );
        }
        Ok(())
    }

    /// The admission limit that the options ask for.
    #[must_use]
    pub fn read_limit(&self) -> ReadLimit {
        match (self.max_files_per_trigger, self.max_bytes_per_trigger) {
            (Some(files), _) => ReadLimit::MaxFiles(files),
            (None, Some(bytes)) => ReadLimit::MaxBytes(bytes),
            (None, None) => ReadLimit::All,
        }
    }

    /// The age past which files are ignored, in milliseconds; none when `latestFirst` reads in parts.
    pub(super) fn age_limit_ms(&self) -> Option<i64> {
        let partly = self.read_limit() != ReadLimit::All;
        (!(self.latest_first && partly))
            .then(|| i64::try_from(self.max_file_age.as_millis()).unwrap_or(i64::MAX))
    }

    /// Writes what differs from the defaults into `options`.
    pub(super) fn put(self, options: &mut Options) {
        let new = Self::default();
        if let Some(files) = self.max_files_per_trigger {
            options.set("maxFilesPerTrigger", files);
        }
        if let Some(bytes) = self.max_bytes_per_trigger {
            options.set("maxBytesPerTrigger", bytes);
        }
        if self.max_file_age != new.max_file_age {
            options.set("maxFileAge", self.max_file_age);
        }
        if self.poll_interval != new.poll_interval {
            options.set("pollInterval", self.poll_interval);
        }
        for (name, set) in [
            ("latestFirst", self.latest_first),
            ("fileNameOnly", self.file_name_only),
            ("recursiveFileLookup", self.recursive_file_lookup),
            ("metadataColumn", self.metadata_column),
            ("schemaInference", self.schema_inference),
            ("ignoreCorruptFiles", self.ignore_corrupt_files),
            ("ignoreMissingFiles", self.ignore_missing_files),
        ] {
            if set {
                options.set(name, true);
            }
        }
        for (name, text) in [
            ("pathGlobFilter", self.path_glob_filter),
            ("basePath", self.base_path),
            ("badFilesPath", self.bad_files_path),
        ] {
            if let Some(text) = text {
                options.set(name, text);
            }
        }
        self.clean_source.put(options);
    }
}

/// What becomes of a file after the micro-batch that read it is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CleanSource {
    /// It stays.
    #[default]
    Off,
    /// It moves below this folder, in the same store; its own path is kept below it.
    Archive(String),
    /// It is deleted.
    Delete,
}

impl CleanSource {
    fn take(options: &mut Options) -> Result<Self> {
        let how = options.take_str("cleanSource");
        let folder = options.take_str("sourceArchiveDir");
        match (
            how.as_deref().map(str::to_ascii_lowercase).as_deref(),
            folder,
        ) {
            (None | Some("off"), _) => Ok(Self::Off),
            (Some("delete"), _) => Ok(Self::Delete),
            (Some("archive"), Some(folder)) => Ok(Self::Archive(folder)),
            (Some("archive"), None) => Err(Error::invalid(
                "option `cleanSource` is `archive`, but there is no `sourceArchiveDir`",
            )
            .with_option("sourceArchiveDir")),
            (Some(other), _) => Err(wrong("cleanSource", other, "off, archive, delete")),
        }
    }

    fn put(self, options: &mut Options) {
        match self {
            Self::Off => {}
            Self::Delete => options.set("cleanSource", "delete"),
            Self::Archive(folder) => {
                options.set("cleanSource", "archive");
                options.set("sourceArchiveDir", folder);
            }
        }
    }
}

/// What happens to a row that does not fit the schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseMode {
    /// Its bad fields become null; its text goes to the corrupt-record column, if the schema has it.
    #[default]
    Permissive,
    /// It is left out.
    DropMalformed,
    /// It fails the query.
    FailFast,
}

impl FromStr for ParseMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim().to_ascii_uppercase().as_str() {
            "PERMISSIVE" => Ok(Self::Permissive),
            "DROPMALFORMED" => Ok(Self::DropMalformed),
            "FAILFAST" => Ok(Self::FailFast),
            _ => Err(wrong("mode", text, "PERMISSIVE, DROPMALFORMED, FAILFAST")),
        }
    }
}

impl fmt::Display for ParseMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Permissive => "PERMISSIVE",
            Self::DropMalformed => "DROPMALFORMED",
            Self::FailFast => "FAILFAST",
        })
    }
}

/// Options of Spark's batch readers that a stream, or this build, does not have.
fn refuse(options: &mut Options) -> Result<()> {
    const REFUSED: [(&str, &str); 7] = [
        (
            "modifiedBefore",
            "every file counts; there is no time limit on them",
        ),
        (
            "modifiedAfter",
            "every file counts; there is no time limit on them",
        ),
        (
            "compression",
            "compressed files are not supported; unpack them first",
        ),
        (
            "format.compression",
            "compressed files are not supported; unpack them first",
        ),
        (
            "mergeSchema",
            "give a schema that has the columns of all files",
        ),
        (
            "maxCachedFiles",
            "the files that a listing found are always kept until they are read",
        ),
        (
            "discardCachedInputRatio",
            "the files that a listing found are always kept until they are read",
        ),
    ];
    for (name, why) in REFUSED {
        if options.take_str(name).is_some() {
            return Err(unsupported(name, why));
        }
    }
    Ok(())
}

/// Takes `name`, or else its other name.
pub(super) fn take_alias<T>(
    options: &mut Options,
    name: &'static str,
    alias: &'static str,
) -> Result<Option<T>>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    let by_alias = options.take(alias)?;
    Ok(options.take(name)?.or(by_alias))
}

/// The error for a value that is none of those allowed.
pub(super) fn wrong(name: &str, value: &str, allowed: &str) -> Error {
    Error::invalid(format!(
        "option `{name}` is `{value}`: it must be one of {allowed}"
    ))
    .with_option(name)
}

/// The error for an option that is known, but not supported.
pub(super) fn unsupported(name: &str, why: &str) -> Error {
    Error::unsupported(format!("option `{name}` is not supported"))
        .with_option(name)
        .with_hint(why)
}

/// A length of time without months that is not negative.
pub(super) fn duration(options: &mut Options, name: &'static str) -> Result<Option<Duration>> {
    options
        .take_interval(name)?
        .map(|interval| interval.to_duration())
        .transpose()
        .map_err(|e| Error::invalid(format!("option `{name}`: {}", e.message())).with_option(name))
}
