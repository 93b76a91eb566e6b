//! The file sink: what is in the directory by its log, after every format, every failure and every restart.

mod crashes;
mod durable;
mod folders;
mod formats;
mod log;
mod refusals;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::{
    CsvReadOptions, JsonReadOptions, ParquetReadOptions, SessionConfig, SessionContext,
};
use futures::{TryStreamExt, stream};
use highwater_core::testing::ManualClock;
use highwater_core::{
    BatchId, BatchOutput, Options, OutputMode, QueryId, Result, RunId, Sink, SinkCommit,
    SinkProvider, SinkRun, SinkSpec, Timestamp,
};
use highwater_storage::RetryPolicy;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use url::Url;
use uuid::Uuid;

use super::{CsvSinkProvider, JsonSinkProvider, ParquetSinkProvider, TextSinkProvider};
use crate::file::sink_log::{SinkFile, sink_log};

const OUT: &str = "mem://store/out";

/// A store, a session that knows it, and a clock.
struct World {
    store: Arc<dyn ObjectStore>,
    session: Arc<SessionState>,
    clock: ManualClock,
}

impl World {
    fn new() -> Self {
        Self::on(Arc::new(InMemory::new()))
    }

    /// What fails is not tried again: each fault is a crash.
    fn on(store: Arc<dyn ObjectStore>) -> Self {
        Self::trying(store, 0)
    }

    /// What fails for a moment is tried again so often, without a pause.
    fn trying(store: Arc<dyn ObjectStore>, attempts: u32) -> Self {
        let policy = RetryPolicy {
            attempts,
            first_delay: Duration::ZERO,
            ..RetryPolicy::default()
        };
        let config = SessionConfig::new().with_extension(Arc::new(policy));
        let session = SessionStateBuilder::new()
            .with_config(config)
            .with_default_features()
            .build();
        let url = Url::parse("mem://store").expect("url");
        let runtime = session.runtime_env();
        runtime.register_object_store(&url, Arc::clone(&store));
        Self {
            store,
            session: Arc::new(session),
            clock: ManualClock::new(Timestamp::from_millis(0)),
        }
    }

    fn spec(&self, format: &str, schema: &SchemaRef, options: impl Into<Options>) -> SinkSpec {
        let (clock, session) = (Arc::new(self.clock.clone()), Arc::clone(&self.session));
        let schema = Arc::clone(schema);
        let mut spec = SinkSpec::new(format, schema, OutputMode::Append, clock, session);
        spec.path = Some(OUT.into());
        spec.options = options.into();
        spec
    }

    async fn open(&self, spec: SinkSpec) -> Result<Arc<dyn Sink>> {
        match spec.format.as_str() {
            "csv" => CsvSinkProvider.open(spec).await,
            "json" => JsonSinkProvider.open(spec).await,
            "parquet" => ParquetSinkProvider.open(spec).await,
            _ => TextSinkProvider.open(spec).await,
        }
    }

    async fn sink(
        &self,
        format: &str,
        schema: &SchemaRef,
        options: impl Into<Options>,
    ) -> Result<Arc<dyn Sink>> {
        self.open(self.spec(format, schema, options)).await
    }

    /// The files of the result, by the log.
    async fn named(&self) -> Result<Vec<SinkFile>> {
        let log = sink_log(Arc::clone(&self.store), &Path::from("out"));
        let entries = log.load_all().await?;
        Ok(entries.into_iter().flat_map(|(_, files)| files).collect())
    }

    /// The paths of the data files that are there, named or not.
    async fn there(&self) -> Result<BTreeSet<String>> {
        let all: Vec<_> = self.store.list(None).try_collect().await?;
        let paths = all.into_iter().map(|meta| meta.location.to_string());
        let data = paths.filter(|path| !path.contains("_spark_metadata"));
        Ok(data.collect())
    }

    async fn text(&self, path: &str) -> Result<String> {
        let bytes = self.store.get(&Path::parse(path).expect("path")).await?;
        let bytes = bytes.bytes().await?;
        Ok(String::from_utf8(bytes.to_vec()).expect("text"))
    }

    /// The text of all files of the result.
    async fn lines(&self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for file in self.named().await? {
            let text = self.text(&path_of(&file)).await?;
            lines.extend(text.lines().map(str::to_owned));
        }
        Ok(lines)
    }

    /// The rows of the result, file by file, as DataFusion's batch reader reads them.
    async fn rows(&self, format: &str, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        let context = SessionContext::new_with_state((*self.session).clone());
        let mut batches = Vec::new();
        for file in self.named().await? {
            let path = file.path.as_str();
            let frame = match format {
                "csv" => {
                    let options = CsvReadOptions::new().has_header(false).schema(schema);
                    context
                        .read_csv(path, options.newlines_in_values(true))
                        .await?
                }
                "json" => {
                    let options = JsonReadOptions::default().schema(schema);
                    context.read_json(path, options).await?
                }
                _ => {
                    context
                        .read_parquet(path, ParquetReadOptions::default())
                        .await?
                }
            };
            batches.extend(frame.collect().await?);
        }
        Ok(batches)
    }
}

/// The path in the store; URLs of tests have no characters that are encoded twice.
fn path_of(file: &SinkFile) -> String {
    let path = file.path.strip_prefix("mem://store/").expect("a URL");
    percent_encoding::percent_decode_str(path)
        .decode_utf8()
        .expect("text")
        .into_owned()
}

/// A run of the query: the `n`th.
fn run(n: u128) -> RunId {
    RunId(Uuid::from_u128(n))
}

const QUERY: QueryId = QueryId(Uuid::from_u128(7));

/// Begins run `n` of a query that has logged micro-batches up to `logged`.
async fn begin(sink: &dyn Sink, n: u128, logged: Option<u64>) -> Result<()> {
    let schema = Arc::new(Schema::empty());
    let mut begun = SinkRun::new(QUERY, run(n), OutputMode::Append, schema);
    begun.last_logged = logged.map(BatchId);
    sink.begin(&begun).await
}

/// Writes `rows` as micro-batch `id` in run `n`.
async fn write(sink: &dyn Sink, n: u128, id: u64, rows: Vec<RecordBatch>) -> Result<SinkCommit> {
    let schema = rows.first().map_or_else(lines_schema, RecordBatch::schema);
    let items = rows.into_iter().map(Ok::<_, DataFusionError>);
    let stream = RecordBatchStreamAdapter::new(Arc::clone(&schema), stream::iter(items));
    sink.write(BatchOutput {
        id: BatchId(id),
        query_id: QUERY,
        run_id: run(n),
        mode: OutputMode::Append,
        schema,
        keys: None,
        stream: Box::pin(stream),
    })
    .await
}

/// `k STRING, line STRING`.
fn lines_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Utf8View, true),
        Field::new("line", DataType::Utf8View, true),
    ]))
}

/// Rows of [`lines_schema`].
fn lines_of(rows: &[(&str, &str)]) -> RecordBatch {
    let keys: StringViewArray = rows.iter().map(|row| Some(row.0)).collect();
    let lines: StringViewArray = rows.iter().map(|row| Some(row.1)).collect();
    let columns: Vec<arrow::array::ArrayRef> = vec![Arc::new(keys), Arc::new(lines)];
    RecordBatch::try_new(lines_schema(), columns).expect("a batch")
}
