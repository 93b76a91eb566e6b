//! `read_stream()`: where rows come from.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::default_table_source::provider_as_source;
use datafusion::common::TableReference;
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::LogicalPlanBuilder;
use highwater_plan::StreamTable;

use crate::sql::stream_of;
use crate::{
    Error, IntoSchema, OptionValue, Options, Result, Source, SourceSpec, StreamFrame, StreamSession,
};

/// Describes a stream to read, as Spark's `readStream`; the last call tells the first mistake.
///
/// ```
/// # use highwater::prelude::*;
/// # #[tokio::main] async fn main() -> highwater::Result<()> {
/// # let session = StreamSession::new();
/// let rows = session.read_stream().format("rate").option("rowsPerSecond", 10).load().await?;
/// assert!(rows.is_streaming());
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "nothing is read until `load`"]
pub struct DataStreamReader {
    session: StreamSession,
    format: Option<String>,
    schema: Option<SchemaRef>,
    options: Options,
    name: Option<String>,
    path: Option<String>,
    source: Option<Arc<dyn Source>>,
    mistake: Option<Error>,
}

impl DataStreamReader {
    pub(crate) fn new(session: StreamSession) -> Self {
        Self {
            session,
            format: None,
            schema: None,
            options: Options::new(),
            name: None,
            path: None,
            source: None,
            mistake: None,
        }
    }

    /// The format: `csv`, `rate`, or one that was registered. There is no default.
    pub fn format(mut self, name: impl Into<String>) -> Self {
        self.format = Some(name.into());
        self
    }

    /// The columns: DDL such as `"ts TIMESTAMP, psi DOUBLE"`, or an Arrow schema; all become nullable.
    pub fn schema(mut self, schema: impl IntoSchema) -> Self {
        match schema.into_schema() {
            Ok(schema) => self.schema = Some(nullable(&schema)),
            Err(error) => self.wrong(error),
        }
        self
    }

    /// An option of the source, by Spark's name; case and `_` do not count.
    pub fn option(mut self, key: impl Into<String>, value: impl Into<OptionValue>) -> Self {
        self.options.set(key, value);
        self
    }

    /// Several options.
    pub fn options(mut self, options: impl Into<Options>) -> Self {
        self.options.extend(options.into());
        self
    }

    /// The source's name: its identity in the checkpoint and the qualifier of its columns; by default the format's.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(fits) {
            self.wrong(
                Error::invalid(format!("the source name `{name}`"))
                    .with_condition("STREAMING_QUERY_EVOLUTION_ERROR.INVALID_SOURCE_NAME")
                    .with_option("name")
                    .with_hint("a name is made of letters, digits and `_`"),
            );
        }
        self.name = Some(name);
        self
    }

    /// The folder, file or pattern to read.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// A source of your own, without registering a format for it.
    pub fn source(mut self, source: Arc<dyn Source>) -> Self {
        self.source = Some(source);
        self
    }

    /// Opens the source.
    ///
    /// # Errors
    /// The first mistake of the calls before; `Invalid` for an unknown format or option; what the source says.
    pub async fn load(mut self) -> Result<StreamFrame> {
        if let Some(mistake) = self.mistake.take() {
            return Err(mistake);
        }
        let named = self.name.is_some();
        let (source, fallback) = match self.source.take() {
            Some(source) => {
                self.nothing_beside_the_source()?;
                (source, "source".to_string())
            }
            None => self.open().await?,
        };
        let name = self.name.unwrap_or(fallback);
        let table = StreamTable::new(name.clone(), source, named);
        self.session.stream(&name, table)
    }

    /// A streaming table or view of the session, or as a stream what a table of files has: one that SQL has declared, or that
    /// [`to_table`](crate::DataStreamWriter::to_table) writes. Tables of sources and of files take more options, and a name.
    ///
    /// # Errors
    /// `Invalid` when there is no such table, when it does not stream, or when options were given.
    pub async fn table(mut self, name: impl Into<TableReference>) -> Result<StreamFrame> {
        if let Some(mistake) = self.mistake.take() {
            return Err(mistake);
        }
        if self.format.is_some() || self.source.is_some() || self.schema.is_some() {
            return Err(Error::invalid(
                "a table has its own format and schema: they cannot be given again",
            )
            .with_option("format"));
        }
        let name = name.into();
        let options = std::mem::take(&mut self.options);
        let identity = self.name.as_deref();
        if let Some(plan) = stream_of(&self.session, &name, options, identity).await? {
            return Ok(self
                .session
                .frame(DataFrame::new(self.session.state(), plan)));
        }
        let frame = self.session.table(name.clone()).await?;
        if !frame.is_streaming() {
            return Err(Error::invalid(format!("the table `{name}` does not stream"))
                .with_hint("read it with `session.table`, or read its files with `read_stream().format(…)`"));
        }
        Ok(frame)
    }

    /// CSV files.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub async fn csv(self, path: impl Into<String>) -> Result<StreamFrame> {
        self.files("csv", path.into()).await
    }

    /// Files of one JSON object a line.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub async fn json(self, path: impl Into<String>) -> Result<StreamFrame> {
        self.files("json", path.into()).await
    }

    /// Parquet files.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub async fn parquet(self, path: impl Into<String>) -> Result<StreamFrame> {
        self.files("parquet", path.into()).await
    }

    /// Text files, a row a line.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub async fn text(self, path: impl Into<String>) -> Result<StreamFrame> {
        self.files("text", path.into()).await
    }

    async fn files(mut self, format: &str, path: String) -> Result<StreamFrame> {
        if let Some(other) = self
            .format
            .as_ref()
            .filter(|f| !f.eq_ignore_ascii_case(format))
        {
            let error = Error::invalid(format!("the format is `{other}` and `{format}` at once"))
                .with_option("format");
            self.wrong(error);
        }
        self.format(format).path(path).load().await
    }

    /// The source alone.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub(crate) async fn open_source(mut self) -> Result<Arc<dyn Source>> {
        match self.mistake.take() {
            Some(mistake) => Err(mistake),
            None => Ok(self.open().await?.0),
        }
    }

    async fn open(&mut self) -> Result<(Arc<dyn Source>, String)> {
        let format = self.format.take().ok_or_else(|| {
            Error::invalid("the stream has no format")
                .with_option("format")
                .with_hint("say `format(\"csv\")`, or call `csv(path)`; there is no default format")
        })?;
        let provider = self.session.registry().source(&format)?;
        let clock = Arc::clone(self.session.clock());
        let state = self.session.state_for_files();
        let name = provider.format().replace('-', "_");
        let mut spec = SourceSpec::new(format, clock, state);
        let mut options = std::mem::take(&mut self.options);
        spec.path = match self.path.take() {
            Some(path) => Some(path),
            None => options.take_str("path"),
        };
        spec.schema = self.schema.take();
        spec.options = options;
        let source = provider.open(spec).await?;
        Ok((source, name))
    }

    /// A source that is given has its own path, schema and options.
    fn nothing_beside_the_source(&self) -> Result<()> {
        let beside = [
            ("format", self.format.is_some()),
            ("schema", self.schema.is_some()),
            ("path", self.path.is_some()),
        ];
        if let Some((what, _)) = beside.iter().find(|(_, given)| *given) {
            return Err(
                Error::invalid(format!("`{what}` has no meaning beside `source(…)`"))
                    .with_option(*what),
            );
        }
        self.options.finish("a source of your own")
    }

    /// Keeps the first mistake.
    fn wrong(&mut self, error: Error) {
        self.mistake.get_or_insert(error);
    }
}

impl StreamSession {
    /// A frame over all of a streaming table.
    pub(crate) fn stream(&self, name: &str, table: StreamTable) -> Result<StreamFrame> {
        let source = provider_as_source(Arc::new(table));
        let plan = LogicalPlanBuilder::scan(TableReference::bare(name), source, None)?.build()?;
        Ok(self.frame(DataFrame::new(self.state(), plan)))
    }
}

/// The same columns, all nullable.
pub(crate) fn nullable(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter();
    let fields: Vec<_> = fields
        .map(|f| f.as_ref().clone().with_nullable(true))
        .collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}
