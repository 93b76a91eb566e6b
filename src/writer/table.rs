//! `to_table(name)`: a query that appends to a table.
//!
//! ```text
//!  there is a table of files      its directory, through the file sink of its format     exactly once
//!  there is another table         insert_into, for each micro-batch                      at least once
//!  there is none                  path(…) or the warehouse: a new table of files         exactly once
//! ```

use std::any::Any;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, TableReference};
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::{Expr, TableType, cast};
use highwater_connectors::file::FileTable;
use highwater_engine::StreamingQuery;
use highwater_plan::StreamTable;

use super::insert::InsertSink;
use super::table_files::{self, OF_BOTH};
use super::{DataStreamWriter, Target};
use crate::reader::nullable;
use crate::sql::DeclaredTable;
use crate::{Error, Options, OutputMode, Result, SourceSpec, StreamFrame, StreamSession};

/// Spark's default format.
const DEFAULT_FORMAT: &str = "parquet";

impl DataStreamWriter {
    /// Starts the query; its rows are appended to the table `name` (Spark's `toTable`).
    ///
    /// - A table **of files** (DataFusion's, over one directory, or one that this call made): rows go through the file sink of its
    ///   format into its directory, exactly once; the query needs a checkpoint. The table then is exactly the
    ///   committed files, for [`StreamSession::table`], SQL and
    ///   [`read_stream().table(name)`](crate::DataStreamReader::table). A directory with files that no sink wrote is refused:
    ///   they would vanish from the table.
    /// - **Another** table that takes inserts: each micro-batch is inserted, at least once.
    ///   After a failure the last micro-batch is inserted again.
    /// - **No** table of that name: with [`path`](Self::path), or else the setting `highwater.warehouse`, a table of
    ///   files is made and registered, in the [`format`](Self::format) given, or Parquet. A session that begins later makes the
    ///   table known again by the same call.
    ///
    /// Columns are matched by name. The output mode is append.
    ///
    /// # Errors
    /// As for [`start`](Self::start); `Unsupported` for another output mode, a view, or a table that takes no rows;
    /// `Invalid`, naming the column, when the query's columns are not the table's; `Invalid` when there is no table and
    /// no path.
    pub async fn to_table(
        mut self,
        name: impl Into<TableReference> + Send,
    ) -> Result<StreamingQuery> {
        let name = name.into();
        if let Some(mistake) = self.mistake.take() {
            return Err(mistake);
        }
        self.must_stream()?;
        must_append(self.mode)?;
        let session = self.frame.session().clone();
        let format = self.format_asked()?;
        let context = session.context();
        let there = match context.table_exist(name.clone())? {
            true => Some(context.table_provider(name.clone()).await?),
            false => None,
        };
        let to = To { session, name };
        let table = match there {
            None => Box::pin(self.create(&to, format)).await?,
            Some(there) => match to.files_of(&there).await? {
                Some(table) => self.append(&to, table, format.as_deref())?,
                None => {
                    self.insert(&to, there, format.as_deref()).await?;
                    return Box::pin(self.start()).await;
                }
            },
        };
        to.must_fit(&table).await?;
        let before = to.put(&table)?;
        match Box::pin(self.start()).await {
            Ok(query) => {
                table.prepare().await?;
                Ok(query)
            }
            Err(error) => {
                to.put_back(before)?;
                Err(error)
            }
        }
    }

    /// The format of a new table, if one was given.
    fn format_asked(&mut self) -> Result<Option<String>> {
        match self.target.take() {
            None => Ok(None),
            Some(Target::Format(format)) => Ok(Some(format)),
            Some(Target::Sink(sink)) => Err(Error::invalid(format!(
                "the query has two sinks: a table and {}",
                sink.description()
            ))
            .with_option("format")
            .with_hint("clone the frame and start a query for each sink")),
        }
    }

    /// A new table of files, and the sink that writes it.
    async fn create(&mut self, to: &To, format: Option<String>) -> Result<Arc<FileTable>> {
        let named = self.options.take_str("path");
        let path = match self.path.take().or(named) {
            Some(path) => path,
            None => to.in_warehouse()?,
        };
        let (state, plan) = DataFrame::from(self.frame.clone()).into_parts();
        let schema = highwater_plan::result_schema(&plan, &state, self.mode)?;
        let format = format.unwrap_or_else(|| DEFAULT_FORMAT.to_owned());
        let options = table_files::of_both(&self.options);
        let table = to
            .table(
                &format,
                path,
                options,
                nullable(&schema),
                &self.partition_by,
            )
            .await?;
        table_files::same_columns(&table, &to.session).await?;
        self.write_to(to, &table)?;
        Ok(table)
    }

    /// A table of files that is there, and the sink that writes it.
    fn append(
        &mut self,
        to: &To,
        table: Arc<FileTable>,
        format: Option<&str>,
    ) -> Result<Arc<FileTable>> {
        let differs = |what: &str, option: &'static str, has: &str, asked: &str| {
            Err(Error::invalid(format!(
                "the table `{}` has the {what} `{has}`, and the query asks for `{asked}`",
                to.name
            ))
            .with_option(option)
            .with_hint("leave it out: the table says it"))
        };
        if let Some(format) = format.filter(|f| !f.eq_ignore_ascii_case(table.format())) {
            return differs("format", "format", table.format(), format);
        }
        let named = self.options.take_str("path");
        if let Some(path) = self.path.take().or(named)
            && path.trim_end_matches('/') != table.path().trim_end_matches('/')
        {
            return differs("path", "path", table.path(), &path);
        }
        let by = table.partition_by();
        if !self.partition_by.is_empty() && self.partition_by != by {
            return differs(
                "partition columns",
                "partitionBy",
                &by.join(", "),
                &self.partition_by.join(", "),
            );
        }
        for option in OF_BOTH {
            let (has, asked) = (table.options().get(option), self.options.get(option));
            if let Some(asked) = asked.filter(|asked| has != Some(asked)) {
                return differs(option, option, has.unwrap_or_default(), asked);
            }
        }
        self.write_to(to, &table)?;
        Ok(table)
    }

    /// Sends the rows through the file sink into the directory of `table`.
    fn write_to(&mut self, to: &To, table: &FileTable) -> Result<()> {
        self.frame = by_name(self.frame.clone(), &table.schema(), to, self.mode)?;
        self.target = Some(Target::Format(table.format().to_owned()));
        self.path = Some(table.path().to_owned());
        self.partition_by = table.partition_by().to_vec();
        self.options.extend(table_files::of_both(table.options()));
        Ok(())
    }

    /// Sends the rows to a table that is not of files.
    async fn insert(
        &mut self,
        to: &To,
        there: Arc<dyn TableProvider>,
        format: Option<&str>,
    ) -> Result<()> {
        if format.is_some() {
            let name = &to.name;
            return Err(
                Error::invalid(format!("the table `{name}` has a format of its own"))
                    .with_option("format")
                    .with_hint("leave it out"),
            );
        }
        self.frame = by_name(self.frame.clone(), &there.schema(), to, self.mode)?;
        let sink = InsertSink::open(to.name.to_string(), there, to.session.state()).await?;
        self.target = Some(Target::Sink(Arc::new(sink)));
        Ok(())
    }
}

/// The table that is written to.
struct To {
    session: StreamSession,
    name: TableReference,
}

impl To {
    /// The table when it is one of files; those of DataFusion become ours.
    async fn files_of(&self, there: &Arc<dyn TableProvider>) -> Result<Option<Arc<FileTable>>> {
        let any: Arc<dyn Any + Send + Sync> = Arc::<dyn TableProvider>::clone(there);
        if let Some(declared) = DeclaredTable::of(there) {
            let files = declared.declared().sink_table(&self.session).await?;
            return Ok(files.map(Arc::new));
        }
        if there.table_type() == TableType::View || any.is::<StreamTable>() {
            return Err(Error::unsupported(format!(
                "`{}` is a view or a stream: rows are appended to tables only",
                self.name
            ))
            .with_hint("choose another name"));
        }
        if let Ok(table) = Arc::clone(&any).downcast::<FileTable>() {
            if table.is_of_sink() {
                return Ok(Some(table));
            }
            let options = table_files::of_both(table.options());
            let (path, schema) = (table.path().to_owned(), table.schema());
            let made = self.table(table.format(), path, options, schema, table.partition_by());
            return made.await.map(Some);
        }
        let Some(listing) = table_files::listing(&*any, &self.session.state())? else {
            return Ok(None);
        };
        let made = self.table(
            listing.format,
            listing.path,
            listing.options,
            nullable(&there.schema()),
            &listing.partition_by,
        );
        made.await.map(Some)
    }

    async fn table(
        &self,
        format: &str,
        path: String,
        options: Options,
        schema: SchemaRef,
        partition_by: &[String],
    ) -> Result<Arc<FileTable>> {
        let clock = Arc::clone(self.session.clock());
        let mut spec = SourceSpec::new(format, clock, self.session.state_for_files());
        spec.path = Some(path);
        spec.schema = Some(schema);
        spec.options = options;
        let table = FileTable::of_sink(spec, partition_by).await;
        Ok(Arc::new(table.map_err(|e| {
            e.context(format_args!("table `{}`", self.name))
        })?))
    }

    /// Where Spark would put the table below the warehouse.
    fn in_warehouse(&self) -> Result<String> {
        let Some(warehouse) = self.session.settings().warehouse else {
            return Err(Error::invalid(format!("there is no table `{}`", self.name))
                .with_condition("TABLE_OR_VIEW_NOT_FOUND")
                .with_option("path")
                .with_hint(
                    "say where a new one is to be with `path(…)`, set `highwater.warehouse`, or register the table first",
                ));
        };
        let warehouse = warehouse.trim_end_matches('/');
        let table = self.name.table();
        Ok(match self.name.schema() {
            None => format!("{warehouse}/{table}"),
            Some(schema) => format!("{warehouse}/{schema}.db/{table}"),
        })
    }

    /// Files that no sink wrote would not count any more once a sink writes.
    async fn must_fit(&self, table: &FileTable) -> Result<()> {
        if table.has_log().await? {
            return Ok(());
        }
        match table.count_files().await? {
            0 => Ok(()),
            files => Err(Error::unsupported(format!(
                "the directory of table `{}`, `{}`, has {files} files that no stream wrote: they would vanish from the table",
                self.name,
                table.path()
            ))
            .with_hint(
                "write to a table of its own and read both, or insert with `foreach_batch`, at least once",
            )),
        }
    }

    /// Registers the table; gives what was there.
    fn put(&self, table: &Arc<FileTable>) -> Result<Option<Arc<dyn TableProvider>>> {
        let context = self.session.context();
        let before = context.deregister_table(self.name.clone())?;
        let declared = before.as_ref().and_then(DeclaredTable::of);
        let files = Arc::<FileTable>::clone(table);
        let now: Arc<dyn TableProvider> = match declared {
            Some(declared) => Arc::new(declared.with_files(files)),
            None => files,
        };
        context.register_table(self.name.clone(), now)?;
        Ok(before)
    }

    fn put_back(&self, before: Option<Arc<dyn TableProvider>>) -> Result<()> {
        let context = self.session.context();
        context.deregister_table(self.name.clone())?;
        if let Some(before) = before {
            context.register_table(self.name.clone(), before)?;
        }
        Ok(())
    }
}

fn must_append(mode: OutputMode) -> Result<()> {
    if mode == OutputMode::Append {
        return Ok(());
    }
    Err(
        Error::unsupported(format!("a table does not support the output mode {mode}"))
            .with_condition("STREAMING_OUTPUT_MODE.UNSUPPORTED_DATASOURCE")
            .with_hint(
                "rows are appended to a table: use append mode, or write it with `foreach_batch`",
            ),
    )
}

/// The frame with the columns of `table`, in their order.
///
/// # Errors
/// `Invalid`, naming the column, when one is missing, is not in the table, or has another type.
fn by_name(
    frame: StreamFrame,
    table: &SchemaRef,
    to: &To,
    mode: OutputMode,
) -> Result<StreamFrame> {
    let (state, plan) = DataFrame::from(frame.clone()).into_parts();
    let result = highwater_plan::result_schema(&plan, &state, mode)?;
    let wrong = |column: &str, what: String| {
        Error::invalid(format!("table `{}`: {what}", to.name)).with_column(column)
    };
    if let Some(extra) = result
        .fields()
        .iter()
        .find(|f| table.field_with_name(f.name()).is_err())
    {
        let name = extra.name();
        return Err(wrong(
            name,
            format!("the query has a column `{name}`, and the table does not"),
        )
        .with_hint("leave it out with `select`, or rename it"));
    }
    let columns = frame.schema().columns();
    let exprs = table.fields().iter().map(|field| {
        let name = field.name();
        let number = result.index_of(name).map_err(|_| {
            wrong(name, format!("the query has no column `{name}`"))
                .with_hint("columns are matched by name: select or rename one")
        })?;
        let (has, wants) = (result.field(number).data_type(), field.data_type());
        if !are_alike(has, wants) {
            let what = format!("column `{name}` is {wants}, and the query's is {has}");
            return Err(wrong(name, what).with_hint("cast it in the query"));
        }
        let column: Column = columns[number].clone();
        Ok(match has == wants {
            true => Expr::Column(column),
            false => cast(Expr::Column(column), wants.clone()).alias(name),
        })
    });
    let exprs = exprs.collect::<Result<Vec<Expr>>>()?;
    let same = exprs.iter().zip(&columns);
    if same.clone().count() == columns.len()
        && same.into_iter().all(|(e, c)| *e == Expr::Column(c.clone()))
    {
        return Ok(frame);
    }
    frame.transform(|frame| frame.select(exprs))
}

/// Types whose values are the same, only kept in another way.
pub(super) fn are_alike(a: &DataType, b: &DataType) -> bool {
    use DataType::{Binary, BinaryView, LargeBinary, LargeUtf8, Timestamp, Utf8, Utf8View};
    let text = |t: &DataType| matches!(t, Utf8 | LargeUtf8 | Utf8View);
    let bytes = |t: &DataType| matches!(t, Binary | LargeBinary | BinaryView);
    match (a, b) {
        (Timestamp(_, a), Timestamp(_, b)) => a == b,
        (a, b) => (text(a) && text(b)) || (bytes(a) && bytes(b)) || a.equals_datatype(b),
    }
}
