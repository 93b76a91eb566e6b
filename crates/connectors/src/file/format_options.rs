//! The options of each file format, as typed structs that become the same map that strings make.

use highwater_core::{Error, Options, Result};

use super::options::{CleanSource, FileSourceOptions, ParseMode, take_alias, unsupported, wrong};

/// Options of the `csv` source.
///
/// Columns go by position. Differences from Spark: there is no escape character unless one is set
/// (a doubled quote stands for a quote), and a header is compared with the schema unless
/// `enforceSchema` is set to true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvSourceOptions {
    /// What all file formats share.
    pub files: FileSourceOptions,
    /// `header` (also `has_header`): the first line of every file is the names of the columns.
    pub header: bool,
    /// `sep` (also `delimiter`): the character between two fields.
    pub sep: u8,
    /// `quote`: the character around a field that holds separators.
    pub quote: u8,
    /// `escape`: the character before a quote that belongs to the field.
    pub escape: Option<u8>,
    /// `comment`: lines that begin with it are left out.
    pub comment: Option<u8>,
    /// `nullValue`: the text that stands for null, besides the empty text.
    pub null_value: String,
    /// `multiLine`: a quoted field may hold line ends.
    pub multi_line: bool,
    /// `enforceSchema`: a header is skipped without a look at it.
    pub enforce_schema: bool,
    /// `ignoreLeadingWhiteSpace`: white space before a field does not count.
    pub ignore_leading_white_space: bool,
    /// `ignoreTrailingWhiteSpace`: white space after a field does not count.
    pub ignore_trailing_white_space: bool,
    /// `lineSep`: the one character that ends a line; by default `\n`, `\r` or `\r\n`.
    pub line_sep: Option<u8>,
    /// `mode`: what happens to a malformed row.
    pub mode: ParseMode,
    /// `columnNameOfCorruptRecord`: the column that gets the text of a malformed row.
    pub column_name_of_corrupt_record: String,
}

impl Default for CsvSourceOptions {
    fn default() -> Self {
        Self {
            files: FileSourceOptions::default(),
            header: false,
            sep: b',',
            quote: b'"',
            escape: None,
            comment: None,
            null_value: String::new(),
            multi_line: false,
            enforce_schema: false,
            ignore_leading_white_space: false,
            ignore_trailing_white_space: false,
            line_sep: None,
            mode: ParseMode::Permissive,
            column_name_of_corrupt_record: CORRUPT.to_owned(),
        }
    }
}

impl CsvSourceOptions {
    /// Takes the options of this format out of `options`; what is left is not this format's.
    ///
    /// # Errors
    /// `Invalid` for a wrong value, `Unsupported` for what is not supported; both name the option.
    pub fn take(options: &mut Options) -> Result<Self> {
        let files = FileSourceOptions::take(options)?;
        utf8_only(options)?;
        formats(options, "dateFormat", "yyyy-MM-dd")?;
        formats(options, "timestampFormat", "yyyy-MM-dd HH:mm:ss")?;
        for (name, why) in REFUSED_CSV {
            if options.take_str(name).is_some() {
                return Err(unsupported(name, why));
            }
        }
        let new = Self::default();
        Ok(Self {
            files,
            header: take_alias(options, "header", "has_header")?
                .or(options.take("format.has_header")?)
                .unwrap_or(false),
            sep: byte(options, "sep")?
                .or(byte(options, "delimiter")?)
                .or(byte(options, "format.delimiter")?)
                .unwrap_or(new.sep),
            quote: byte(options, "quote")?.unwrap_or(new.quote),
            escape: byte(options, "escape")?,
            comment: byte(options, "comment")?,
            null_value: options.take_str("nullValue").unwrap_or_default(),
            multi_line: options.take("multiLine")?.unwrap_or(false),
            enforce_schema: options.take("enforceSchema")?.unwrap_or(false),
            ignore_leading_white_space: options.take("ignoreLeadingWhiteSpace")?.unwrap_or(false),
            ignore_trailing_white_space: options.take("ignoreTrailingWhiteSpace")?.unwrap_or(false),
            line_sep: byte(options, "lineSep")?,
            mode: options.take("mode")?.unwrap_or_default(),
            column_name_of_corrupt_record: options
                .take_str("columnNameOfCorruptRecord")
                .unwrap_or(new.column_name_of_corrupt_record),
        })
    }
}

const CORRUPT: &str = "_corrupt_record";

const REFUSED_CSV: [(&str, &str); 10] = [
    (
        "charToEscapeQuoteEscaping",
        "set `escape`, or double the quotes",
    ),
    ("emptyValue", "an empty field is null"),
    ("nanValue", "`NaN` is read as it is"),
    ("positiveInf", "`inf` is read as it is"),
    ("negativeInf", "`-inf` is read as it is"),
    (
        "timestampNTZFormat",
        "times are written `2024-05-01 12:00:00`",
    ),
    ("locale", "numbers and dates are written as in ISO 8601"),
    ("maxColumns", "the schema says how many columns there are"),
    ("maxCharsPerColumn", "fields may have any length"),
    (
        "unescapedQuoteHandling",
        "a quote inside an unquoted field is a character like any other",
    ),
];

/// Options of the `json` source: one JSON object a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonSourceOptions {
    /// What all file formats share.
    pub files: FileSourceOptions,
    /// `mode`: what happens to a malformed line.
    pub mode: ParseMode,
    /// `columnNameOfCorruptRecord`: the column that gets the text of a malformed line.
    pub column_name_of_corrupt_record: String,
}

impl Default for JsonSourceOptions {
    fn default() -> Self {
        Self {
            files: FileSourceOptions::default(),
            mode: ParseMode::Permissive,
            column_name_of_corrupt_record: CORRUPT.to_owned(),
        }
    }
}

impl JsonSourceOptions {
    /// Takes the options of this format out of `options`; what is left is not this format's.
    ///
    /// # Errors
    /// `Invalid` for a wrong value, `Unsupported` for what is not supported; both name the option.
    pub fn take(options: &mut Options) -> Result<Self> {
        let files = FileSourceOptions::take(options)?;
        utf8_only(options)?;
        formats(options, "dateFormat", "yyyy-MM-dd")?;
        formats(options, "timestampFormat", "yyyy-MM-dd HH:mm:ss")?;
        if options.take::<bool>("multiLine")? == Some(true) {
            return Err(unsupported("multiLine", "write one JSON object a line"));
        }
        if options
            .take_str("lineSep")
            .is_some_and(|s| unescape(&s) != "\n")
        {
            return Err(unsupported("lineSep", "lines of JSON end with `\\n`"));
        }
        Ok(Self {
            files,
            mode: options.take("mode")?.unwrap_or_default(),
            column_name_of_corrupt_record: options
                .take_str("columnNameOfCorruptRecord")
                .unwrap_or_else(|| CORRUPT.to_owned()),
        })
    }
}

/// Options of the `parquet` source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParquetSourceOptions {
    /// What all file formats share.
    pub files: FileSourceOptions,
}

impl ParquetSourceOptions {
    /// Takes the options of this format out of `options`; what is left is not this format's.
    ///
    /// # Errors
    /// `Invalid` for a wrong value, `Unsupported` for what is not supported; both name the option.
    pub fn take(options: &mut Options) -> Result<Self> {
        FileSourceOptions::take(options).map(|files| Self { files })
    }
}

/// Options of the `text` source: a column `value`, one row a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextSourceOptions {
    /// What all file formats share.
    pub files: FileSourceOptions,
    /// `wholetext`: one row a file.
    pub whole_text: bool,
    /// `lineSep`: what ends a line; by default `\n`, `\r` or `\r\n`.
    pub line_sep: Option<String>,
}

impl TextSourceOptions {
    /// Takes the options of this format out of `options`; what is left is not this format's.
    ///
    /// # Errors
    /// `Invalid` for a wrong value, `Unsupported` for what is not supported; both name the option.
    pub fn take(options: &mut Options) -> Result<Self> {
        let files = FileSourceOptions::take(options)?;
        utf8_only(options)?;
        let line_sep = options.take_str("lineSep").map(|s| unescape(&s));
        if line_sep.as_deref() == Some("") {
            return Err(Error::invalid("option `lineSep` must not be empty").with_option("lineSep"));
        }
        Ok(Self {
            files,
            whole_text: options.take("wholetext")?.unwrap_or(false),
            line_sep,
        })
    }
}

/// The setters every format has, and its way back into a map.
macro_rules! shared_setters {
    ($($options:ident),*) => {$(
        impl $options {
            /// The defaults.
            #[must_use]
            pub fn new() -> Self {
                Self::default()
            }

            /// Sets `maxFilesPerTrigger`.
            #[must_use]
            pub fn max_files_per_trigger(mut self, files: u64) -> Self {
                self.files.max_files_per_trigger = Some(files);
                self
            }

            /// Sets `maxBytesPerTrigger`.
            #[must_use]
            pub fn max_bytes_per_trigger(mut self, bytes: u64) -> Self {
                self.files.max_bytes_per_trigger = Some(bytes);
                self
            }

            shared_setters!(@each
                latest_first: bool, "latestFirst";
                max_file_age: std::time::Duration, "maxFileAge";
                file_name_only: bool, "fileNameOnly";
                recursive_file_lookup: bool, "recursiveFileLookup";
                clean_source: CleanSource, "cleanSource";
                poll_interval: std::time::Duration, "pollInterval";
                metadata_column: bool, "metadataColumn";
                schema_inference: bool, "schemaInference";
                ignore_corrupt_files: bool, "ignoreCorruptFiles";
                ignore_missing_files: bool, "ignoreMissingFiles";
            );

            /// Sets `pathGlobFilter`.
            #[must_use]
            pub fn path_glob_filter(mut self, glob: impl Into<String>) -> Self {
                self.files.path_glob_filter = Some(glob.into());
                self
            }

            /// Sets `badFilesPath`.
            #[must_use]
            pub fn bad_files_path(mut self, path: impl Into<String>) -> Self {
                self.files.bad_files_path = Some(path.into());
                self
            }

            /// Sets `basePath`.
            #[must_use]
            pub fn base_path(mut self, path: impl Into<String>) -> Self {
                self.files.base_path = Some(path.into());
                self
            }
        }
    )*};
    (@each $($field:ident: $type:ty, $name:literal;)*) => {$(
        #[doc = concat!("Sets `", $name, "`.")]
        #[must_use]
        pub fn $field(mut self, value: $type) -> Self {
            self.files.$field = value;
            self
        }
    )*};
}
shared_setters!(
    CsvSourceOptions,
    JsonSourceOptions,
    ParquetSourceOptions,
    TextSourceOptions
);

/// Setters of a format's own fields.
macro_rules! setters {
    ($options:ident: $($field:ident: $type:ty, $name:literal;)*) => {
        impl $options {$(
            #[doc = concat!("Sets `", $name, "`.")]
            #[must_use]
            pub fn $field(mut self, value: impl Into<$type>) -> Self {
                self.$field = value.into();
                self
            }
        )*}
    };
}
setters!(CsvSourceOptions:
    header: bool, "header";
    sep: u8, "sep";
    quote: u8, "quote";
    escape: Option<u8>, "escape";
    comment: Option<u8>, "comment";
    null_value: String, "nullValue";
    multi_line: bool, "multiLine";
    enforce_schema: bool, "enforceSchema";
    ignore_leading_white_space: bool, "ignoreLeadingWhiteSpace";
    ignore_trailing_white_space: bool, "ignoreTrailingWhiteSpace";
    line_sep: Option<u8>, "lineSep";
    mode: ParseMode, "mode";
    column_name_of_corrupt_record: String, "columnNameOfCorruptRecord";
);
setters!(JsonSourceOptions:
    mode: ParseMode, "mode";
    column_name_of_corrupt_record: String, "columnNameOfCorruptRecord";
);
setters!(TextSourceOptions:
    whole_text: bool, "wholetext";
    line_sep: Option<String>, "lineSep";
);

impl From<CsvSourceOptions> for Options {
    fn from(csv: CsvSourceOptions) -> Self {
        let new = CsvSourceOptions::default();
        let mut options = Self::new();
        csv.files.put(&mut options);
        for (name, value, default) in [
            ("sep", Some(csv.sep), Some(new.sep)),
            ("quote", Some(csv.quote), Some(new.quote)),
            ("escape", csv.escape, None),
            ("comment", csv.comment, None),
            ("lineSep", csv.line_sep, None),
        ] {
            if let Some(byte) = value.filter(|_| value != default) {
                options.set(name, char::from(byte).to_string());
            }
        }
        for (name, value) in [
            ("header", csv.header),
            ("multiLine", csv.multi_line),
            ("enforceSchema", csv.enforce_schema),
            ("ignoreLeadingWhiteSpace", csv.ignore_leading_white_space),
            ("ignoreTrailingWhiteSpace", csv.ignore_trailing_white_space),
        ] {
            if value {
                options.set(name, true);
            }
        }
        if !csv.null_value.is_empty() {
            options.set("nullValue", csv.null_value);
        }
        put_mode(&mut options, csv.mode, csv.column_name_of_corrupt_record);
        options
    }
}

impl From<JsonSourceOptions> for Options {
    fn from(json: JsonSourceOptions) -> Self {
        let mut options = Self::new();
        json.files.put(&mut options);
        put_mode(&mut options, json.mode, json.column_name_of_corrupt_record);
        options
    }
}

impl From<ParquetSourceOptions> for Options {
    fn from(parquet: ParquetSourceOptions) -> Self {
        let mut options = Self::new();
        parquet.files.put(&mut options);
        options
    }
}

impl From<TextSourceOptions> for Options {
    fn from(text: TextSourceOptions) -> Self {
        let mut options = Self::new();
        text.files.put(&mut options);
        if text.whole_text {
            options.set("wholetext", true);
        }
        if let Some(line_sep) = text.line_sep {
            options.set("lineSep", line_sep);
        }
        options
    }
}

fn put_mode(options: &mut Options, mode: ParseMode, corrupt: String) {
    if mode != ParseMode::default() {
        options.set("mode", mode.to_string());
    }
    if corrupt != CORRUPT {
        options.set("columnNameOfCorruptRecord", corrupt);
    }
}

/// One ASCII character; `\t` and its like may be spelled out.
pub(super) fn byte(options: &mut Options, name: &'static str) -> Result<Option<u8>> {
    let Some(text) = options.take_str(name) else {
        return Ok(None);
    };
    match unescape(&text).as_bytes() {
        [byte] if byte.is_ascii() => Ok(Some(*byte)),
        _ => Err(wrong(name, &text, "the single ASCII characters")),
    }
}

/// What `\t`, `\n` and their like stand for.
pub(super) fn unescape(text: &str) -> String {
    match text {
        "\\t" => "\t".to_owned(),
        "\\n" => "\n".to_owned(),
        "\\r" => "\r".to_owned(),
        "\\r\\n" => "\r\n".to_owned(),
        "\\\\" => "\\".to_owned(),
        _ => text.to_owned(),
    }
}

fn utf8_only(options: &mut Options) -> Result<()> {
    for name in ["encoding", "charset"] {
        if let Some(value) = options.take_str(name)
            && !["utf-8", "utf8"].contains(&value.to_ascii_lowercase().as_str())
        {
            return Err(unsupported(name, "files are read as UTF-8"));
        }
    }
    Ok(())
}

/// Only the format that is read anyway may be asked for.
fn formats(options: &mut Options, name: &'static str, known: &str) -> Result<()> {
    match options.take_str(name) {
        Some(format) if format.replace('\'', "").replace('T', " ") != known => Err(unsupported(
            name,
            &format!(
                "values are written `{known}`; read the column as STRING and use to_date or to_timestamp"
            ),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typed_struct_becomes_the_map_it_came_from() {
        let csv = CsvSourceOptions::new()
            .header(true)
            .sep(b';')
            .mode(ParseMode::FailFast)
            .max_files_per_trigger(1)
            .clean_source(CleanSource::Archive("/done".into()))
            .poll_interval(std::time::Duration::from_millis(20));
        let mut map = Options::from(csv.clone());
        assert_eq!(CsvSourceOptions::take(&mut map).ok(), Some(csv));
        assert!(map.is_empty());
    }

    #[test]
    fn wrong_options_are_refused_by_name() {
        for (name, value, option) in [
            ("maxFilesPerTrigger", "0", "maxFilesPerTrigger"),
            ("maxFilesPerTrigger", "many", "maxFilesPerTrigger"),
            ("maxFileAge", "7", "maxFileAge"),
            ("cleanSource", "burn", "cleanSource"),
            ("cleanSource", "archive", "sourceArchiveDir"),
            ("modifiedAfter", "2024-01-01T00:00:00", "modifiedAfter"),
            ("compression", "gzip", "compression"),
            ("encoding", "latin1", "encoding"),
            ("mode", "lenient", "mode"),
            ("sep", "ab", "sep"),
            ("dateFormat", "M/d/yy", "dateFormat"),
        ] {
            let mut options = Options::from([(name, value)]);
            let error = CsvSourceOptions::take(&mut options).expect_err(name);
            assert_eq!(error.option(), Some(option), "{name}={value}: {error}");
        }
    }

    #[test]
    fn datafusions_names_are_aliases() {
        let mut options = Options::from([("format.has_header", "true"), ("format.delimiter", ";")]);
        let csv = CsvSourceOptions::take(&mut options).expect("taken");
        assert!(csv.header && csv.sep == b';' && options.is_empty());
    }

    #[test]
    fn both_limits_exclude_each_other() {
        let mut options = Options::from([("maxFilesPerTrigger", 1), ("maxBytesPerTrigger", 1)]);
        assert!(ParquetSourceOptions::take(&mut options).is_err());
    }
}
