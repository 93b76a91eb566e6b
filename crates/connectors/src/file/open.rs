//! From what the user asked for to what is read: format, files and columns.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use datafusion::execution::SessionState;
use highwater_core::{Error, Options, Result, SourceSpec};
use highwater_storage::{RetryPolicy, RetryStore};

use super::bad::BadFiles;
use super::clean::Cleaner;
use super::format::Format;
use super::infer;
use super::layout::Layout;
use super::listing::{ListedFile, Lister};
use super::location::Location;
use super::partitions;
use super::source::Shared;

/// What files are opened for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Opening<'a> {
    /// For a stream: a schema must be given, or asked to be inferred.
    Stream,
    /// For a batch: without a schema it is inferred (Spark); the columns of CSV are strings unless `inferSchema` is set.
    Batch,
    /// For the table of a sink: the schema is given, and these are its partition columns.
    Table(&'a [String]),
}

impl Opening<'_> {
    /// Opens files of format `name`.
    ///
    /// # Errors
    /// `Invalid` for a wrong path, option or schema.
    pub(super) async fn open(self, name: &str, spec: SourceSpec) -> Result<Shared> {
        let mut options = spec.options;
        let path = options.take_str("path");
        if matches!(self, Self::Batch) {
            no_options_of_streams(&options)?;
        }
        let (format, files) = Format::take(name, &mut options)?;
        let path = spec.path.or(path).ok_or_else(|| {
            Error::invalid(format!("source `{name}` needs a path"))
                .with_option("path")
                .with_hint("give one with `load(path)`")
        })?;
        let runtime = spec.session.runtime_env();
        let retries = RetryPolicy::of(spec.session.config());
        let locate = |path: &str| {
            let mut location = Location::parse(path, runtime)?;
            let clock = Arc::clone(&spec.clock);
            location.store = RetryStore::around(location.store, retries.clone(), clock);
            Ok::<_, Error>(location)
        };
        let location = locate(&path)?;
        let aside = files.bad_files_path.as_deref().map(locate).transpose()?;
        let bad_files = BadFiles::new(&files, &location, aside)?;
        let cleaner = Cleaner::new(&files.clean_source, &location, runtime)?;
        let base_path = match &files.base_path {
            Some(base) => Some(base_of(base, &location, &Location::parse(base, runtime)?)?),
            None => None,
        };
        let mut lister = match self {
            Self::Table(_) => Lister::of_sink(location, &files).await?,
            _ => Lister::open(location, &files).await?,
        };
        let mut shared = Shared {
            description: format!("FileStreamSource[{}]", lister.location().shown()),
            layout: Layout::empty(),
            format,
            options: files,
            cleaner,
            bad_files: Arc::new(bad_files),
            base_path,
            lister: lister.clone(),
        };
        let (layout, look_below) = self.columns(&shared, spec.schema, &spec.session).await?;
        shared.format.check(&layout.file_schema)?;
        lister.set_partitioned(look_below);
        shared.layout = layout;
        shared.lister = lister;
        Ok(shared)
    }

    /// The columns, and whether files in folders `k=v` must be looked for.
    async fn columns(
        self,
        shared: &Shared,
        given: Option<SchemaRef>,
        session: &SessionState,
    ) -> Result<(Layout, bool)> {
        let (format, options) = (&shared.format, &shared.options);
        let given = given.or_else(|| format.own_schema());
        let found = match self {
            Self::Table(_) => vec![],
            _ => shared.lister.list().await?,
        };
        let partitions = match self {
            Self::Table(columns) => columns
                .iter()
                .map(|column| partitions::known(column, given.as_ref()))
                .collect::<Result<_>>()?,
            _ if options.recursive_file_lookup => vec![],
            _ => {
                let folders = found
                    .iter()
                    .map(|file| shared.lister.folders(&file.path, shared.base_path.as_ref()));
                partitions::discover(&folders.collect::<Vec<_>>(), given.as_ref())?
            }
        };
        let data = match given {
            Some(schema) => schema,
            None => self.inferred(shared, &found, session).await?,
        };
        // Without a file it is too early to say: partitions that come later must not go unnoticed.
        let look_below = !partitions.is_empty() || found.is_empty();
        let corrupt = format.corrupt_column();
        let layout = Layout::new(&data, partitions, corrupt, options.metadata_column)?;
        Ok((layout, look_below))
    }

    async fn inferred(
        self,
        shared: &Shared,
        found: &[ListedFile],
        session: &SessionState,
    ) -> Result<SchemaRef> {
        let (format, options) = (&shared.format, &shared.options);
        if !options.schema_inference && !matches!(self, Self::Batch) {
            return Err(no_schema(format.name()));
        }
        let schema = infer::infer(format, found, shared.lister.location(), session).await?;
        match format {
            Format::Csv(_) if !options.schema_inference => Ok(as_strings(&schema)),
            _ => Ok(schema),
        }
    }
}

/// Options that say how a stream goes on have no meaning where files are read once.
fn no_options_of_streams(options: &Options) -> Result<()> {
    const OF_STREAMS: [&str; 8] = [
        "maxFilesPerTrigger",
        "maxBytesPerTrigger",
        "latestFirst",
        "maxFileAge",
        "fileNameOnly",
        "cleanSource",
        "sourceArchiveDir",
        "pollInterval",
    ];
    match OF_STREAMS.iter().find(|name| options.get(name).is_some()) {
        None => Ok(()),
        Some(name) => Err(Error::invalid(format!(
            "option `{name}` has no meaning for a batch: it reads all files that are there"
        ))
        .with_option(*name)
        .with_hint("leave it out, or read a stream with `read_stream()`")),
    }
}

fn as_strings(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter();
    let fields = fields.map(|field| Field::new(field.name(), DataType::Utf8View, true));
    Arc::new(Schema::new(fields.collect::<Fields>()))
}

fn no_schema(name: &str) -> Error {
    Error::invalid(format!("source `{name}` needs a schema")).with_hint(
        "give one with `schema(\"id BIGINT, name STRING\")`, or set `schemaInference` to true",
    )
}

fn base_of(text: &str, location: &Location, base: &Location) -> Result<object_store::path::Path> {
    let inside = base.url == location.url && location.base.prefix_matches(&base.base);
    if base.is_glob() || !inside {
        return Err(Error::invalid(format!(
            "option `basePath` is `{text}`: it must be a folder above `{}`",
            location.display
        ))
        .with_option("basePath"));
    }
    Ok(base.base.clone())
}
