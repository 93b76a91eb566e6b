//! `read()`: files as a static table.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::default_table_source::provider_as_source;
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::{LogicalPlanBuilder, UNNAMED_TABLE};
use highwater_connectors::file::FileTable;

use crate::reader::nullable;
use crate::{
    Error, IntoSchema, OptionValue, Options, Result, SourceSpec, StreamFrame, StreamSession,
};

/// Describes files to read once, as Spark's `read`; the last call tells the first mistake.
///
/// Formats, options and rows are those of [`read_stream`](StreamSession::read_stream). Of a directory that a file
/// sink wrote it reads exactly the committed files, which DataFusion's own readers cannot know. Each action on the frame
/// looks anew at which files there are.
///
/// ```
/// # use highwater::prelude::*;
/// # #[tokio::main] async fn main() -> highwater::Result<()> {
/// # let folder = tempfile::tempdir().expect("a folder");
/// # let path = folder.path().to_string_lossy().into_owned();
/// # std::fs::write(folder.path().join("a.csv"), "pump,psi\na,0.9\n").expect("written");
/// let session = StreamSession::new();
/// let pumps = session.read().schema("pump STRING, psi DOUBLE").option("header", true).csv(path).await?;
/// assert!(!pumps.is_streaming());
/// assert_eq!(pumps.count().await?, 1);
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "nothing is read until `load`"]
pub struct DataFrameReader {
    session: StreamSession,
    format: Option<String>,
    schema: Option<SchemaRef>,
    options: Options,
    mistake: Option<Error>,
}

impl DataFrameReader {
    pub(crate) fn new(session: StreamSession) -> Self {
        Self {
            session,
            format: None,
            schema: None,
            options: Options::new(),
            mistake: None,
        }
    }

    /// The format: `csv`, `json`, `parquet` or `text`. There is no default.
    pub fn format(mut self, name: impl Into<String>) -> Self {
        self.format = Some(name.into());
        self
    }

    /// The columns: DDL such as `"ts TIMESTAMP, psi DOUBLE"`, or an Arrow schema; all become nullable.
    ///
    /// Without a schema it is inferred from the files; the columns of CSV are then strings, unless `inferSchema` is
    /// true (Spark).
    pub fn schema(mut self, schema: impl IntoSchema) -> Self {
        match schema.into_schema() {
            Ok(schema) => self.schema = Some(nullable(&schema)),
            Err(error) => self.wrong(error),
        }
        self
    }

    /// An option of the format, by Spark's name; case and `_` do not count.
    pub fn option(mut self, key: impl Into<String>, value: impl Into<OptionValue>) -> Self {
        self.options.set(key, value);
        self
    }

    /// Several options.
    pub fn options(mut self, options: impl Into<Options>) -> Self {
        self.options.extend(options.into());
        self
    }

    /// The files of a folder, file or pattern.
    ///
    /// # Errors
    /// The first mistake of the calls before; `Invalid` for an unknown format or option, one that only streams have, or a
    /// path that does not exist.
    pub async fn load(mut self, path: impl Into<String>) -> Result<StreamFrame> {
        if let Some(mistake) = self.mistake.take() {
            return Err(mistake);
        }
        let format = self.format.take().ok_or_else(|| {
            Error::invalid("the files have no format")
                .with_option("format")
                .with_hint("say `format(\"parquet\")`, or call `parquet(path)`")
        })?;
        let state = self.session.state();
        let clock = Arc::clone(self.session.clock());
        let mut spec = SourceSpec::new(format, clock, self.session.state_for_files());
        spec.path = Some(path.into());
        spec.schema = self.schema.take();
        spec.options = std::mem::take(&mut self.options);
        let source = provider_as_source(Arc::new(FileTable::open(spec).await?));
        let plan = LogicalPlanBuilder::scan(UNNAMED_TABLE, source, None)?.build()?;
        Ok(self.session.frame(DataFrame::new(state, plan)))
    }

    /// A table or view of the session.
    ///
    /// # Errors
    /// `Invalid` when there is no such table, or when a format, schema or options were given.
    pub async fn table(mut self, name: &str) -> Result<StreamFrame> {
        if let Some(mistake) = self.mistake.take() {
            return Err(mistake);
        }
        if self.format.is_some() || self.schema.is_some() {
            return Err(Error::invalid(
                "a table has its own format and schema: they cannot be given again",
            )
            .with_option("format"));
        }
        self.options.finish("a table")?;
        self.session.table(name).await
    }

    /// CSV files.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub async fn csv(self, path: impl Into<String>) -> Result<StreamFrame> {
        self.format("csv").load(path).await
    }

    /// Files of one JSON object a line.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub async fn json(self, path: impl Into<String>) -> Result<StreamFrame> {
        self.format("json").load(path).await
    }

    /// Parquet files.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub async fn parquet(self, path: impl Into<String>) -> Result<StreamFrame> {
        self.format("parquet").load(path).await
    }

    /// Text files, a row a line.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub async fn text(self, path: impl Into<String>) -> Result<StreamFrame> {
        self.format("text").load(path).await
    }

    /// Keeps the first mistake.
    fn wrong(&mut self, error: Error) {
        self.mistake.get_or_insert(error);
    }
}
