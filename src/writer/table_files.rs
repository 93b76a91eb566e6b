//! Tables of files: what DataFusion's say of themselves, and what must fit.

use std::any::Any;

use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::ListingTable;
use datafusion::execution::SessionState;
use highwater_connectors::file::FileTable;

use super::table::are_alike;
use crate::{Error, Options, Result, SourceSpec, StreamSession};
use datafusion::catalog::TableProvider;
use std::sync::Arc;

/// Options that say how the files of a table look, for those who write them and those who read them.
pub(crate) const OF_BOTH: [&str; 6] =
    ["header", "sep", "delimiter", "quote", "escape", "nullValue"];

/// Those of `options` that say how the files look.
pub(super) fn of_both(options: &Options) -> Options {
    let mut both = Options::new();
    for name in OF_BOTH {
        if let Some(value) = options.get(name) {
            both.set(name, value);
        }
    }
    both
}

/// What a table of DataFusion's says of its files.
pub(crate) struct Listing {
    pub(crate) format: &'static str,
    pub(crate) path: String,
    pub(crate) options: Options,
    pub(crate) partition_by: Vec<String>,
}

/// The files of `table`, if it is a table of files.
///
/// # Errors
/// `Unsupported` when it is not of one directory, or of files that are not written.
pub(super) fn listing(table: &dyn Any, state: &SessionState) -> Result<Option<Listing>> {
    let Some(table) = table.downcast_ref::<ListingTable>() else {
        return Ok(None);
    };
    let [url] = table.table_paths().as_slice() else {
        return Err(Error::unsupported("the table is of several paths")
            .with_hint("rows are appended to a table of one directory"));
    };
    if url.get_glob().is_some() || !url.is_folder() {
        return Err(
            Error::unsupported(format!("the table is of `{}`", url.as_str()))
                .with_hint("rows are appended to a table of one directory: end its path with `/`"),
        );
    }
    let (format, options) = format_of(&*table.options().format, state)?;
    let columns = table.options().table_partition_cols.iter();
    Ok(Some(Listing {
        format,
        path: url.as_str().to_owned(),
        options,
        partition_by: columns.map(|(name, _)| name.clone()).collect(),
    }))
}

/// The files of `table`, if it is a table of files, to be read: a pattern or one file will do, too.
///
/// # Errors
/// `Unsupported` when it is of several paths, or of files that we do not read.
pub(crate) fn read_listing(table: &dyn Any, state: &SessionState) -> Result<Option<Listing>> {
    let Some(table) = table.downcast_ref::<ListingTable>() else {
        return Ok(None);
    };
    let [url] = table.table_paths().as_slice() else {
        return Err(Error::unsupported("a stream of a table of several paths")
            .with_hint("declare a table for each path"));
    };
    let (format, options) = format_of(&*table.options().format, state)?;
    let columns = table.options().table_partition_cols.iter();
    let pattern = url.get_glob().as_ref().map_or("", |glob| glob.as_str());
    Ok(Some(Listing {
        format,
        path: format!("{}{pattern}", url.as_str()),
        options,
        partition_by: columns.map(|(name, _)| name.clone()).collect(),
    }))
}

fn format_of(format: &dyn FileFormat, state: &SessionState) -> Result<(&'static str, Options)> {
    let any: &dyn Any = format;
    let mut options = Options::new();
    let compressed = format.compression_type().is_some_and(|c| c.is_compressed());
    if compressed {
        return Err(Error::unsupported("the files of the table are compressed"));
    }
    if any.is::<ParquetFormat>() {
        return Ok(("parquet", options));
    }
    if any.is::<JsonFormat>() {
        return Ok(("json", options));
    }
    let Some(csv) = any.downcast_ref::<CsvFormat>() else {
        return Err(Error::unsupported(format!(
            "the files of the table are of the format `{}`",
            format.get_ext()
        ))
        .with_hint("the formats are csv, json, parquet and text"));
    };
    let by_default = state.config_options().catalog.has_header;
    options.set("header", csv.has_header().unwrap_or(by_default));
    let letters = [
        ("sep", Some(csv.delimiter())),
        ("quote", Some(csv.quote())),
        ("escape", csv.escape()),
    ];
    for (name, byte) in letters {
        if let Some(byte) = byte {
            options.set(name, char::from(byte).to_string());
        }
    }
    Ok(("csv", options))
}

/// Makes sure that files which an earlier query has written have the columns of `table`.
///
/// # Errors
/// `Invalid`, naming the column.
pub(super) async fn same_columns(table: &FileTable, session: &StreamSession) -> Result<()> {
    if !table.has_log().await? || table.count_files().await? == 0 {
        return Ok(());
    }
    let clock = Arc::clone(session.clock());
    let mut spec = SourceSpec::new(table.format(), clock, session.state_for_files());
    spec.path = Some(table.path().to_owned());
    spec.options = of_both(table.options());
    if table.format() != "parquet" {
        spec.schema = Some(table.schema());
    }
    let written = FileTable::open(spec).await?;
    if written.partition_by() != table.partition_by() {
        return Err(Error::invalid(format!(
            "`{}` was written with the partition columns [{}], and the query asks for [{}]",
            table.path(),
            written.partition_by().join(", "),
            table.partition_by().join(", ")
        ))
        .with_option("partitionBy"));
    }
    let (has, wants) = (written.schema(), table.schema());
    for field in wants.fields() {
        let name = field.name();
        if table.partition_by().contains(name) {
            continue;
        }
        let fits = |has: &arrow::datatypes::Field| are_alike(has.data_type(), field.data_type());
        if !has.field_with_name(name).is_ok_and(fits) {
            return Err(Error::invalid(format!(
                "`{}` was written with other columns: `{name}` is not among them, or of another type",
                table.path()
            ))
            .with_column(name)
            .with_hint("write to a new path"));
        }
    }
    match has
        .fields()
        .iter()
        .find(|f| wants.field_with_name(f.name()).is_err())
    {
        None => Ok(()),
        Some(more) => Err(Error::invalid(format!(
            "`{}` was written with a column `{}`, which the query does not have",
            table.path(),
            more.name()
        ))
        .with_column(more.name())
        .with_hint("write to a new path")),
    }
}
