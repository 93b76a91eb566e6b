//! One file that is being written.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::parquet::arrow::AsyncArrowWriter;
use datafusion::parquet::errors::ParquetError;
use highwater_core::{Error, Result};
use object_store::ObjectStore;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use tokio::io::AsyncWriteExt;

use super::format::Format;
use super::rows::Lines;

/// A file that is being written. It exists, whole, once it is finished.
#[derive(Debug)]
pub(super) struct PartFile {
    path: Path,
    schema: SchemaRef,
    rows: u64,
    writer: Writer,
}

enum Writer {
    Parquet(Box<AsyncArrowWriter<BufWriter>>),
    Lines {
        upload: Box<BufWriter>,
        lines: Arc<dyn Lines>,
    },
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Parquet(_) => "Parquet",
            Self::Lines { .. } => "Lines",
        })
    }
}

impl PartFile {
    /// Begins the file.
    ///
    /// # Errors
    /// When the schema does not fit the format, or the store fails.
    pub(super) async fn begin(
        store: &Arc<dyn ObjectStore>,
        path: Path,
        format: &Format,
        schema: &SchemaRef,
    ) -> Result<Self> {
        let mut upload = BufWriter::new(Arc::clone(store), path.clone());
        let writer = match format {
            Format::Parquet { properties, .. } => {
                let (schema, properties) = (Arc::clone(schema), properties.as_ref().clone());
                let writer = AsyncArrowWriter::try_new(upload, schema, Some(properties));
                Writer::Parquet(Box::new(writer.map_err(|e| failed(&path, e))?))
            }
            Format::Lines { lines, .. } => {
                let head = lines.head(schema);
                if !head.is_empty() {
                    upload.put(head.into()).await?;
                }
                let (upload, lines) = (Box::new(upload), Arc::clone(lines));
                Writer::Lines { upload, lines }
            }
        };
        Ok(Self {
            path,
            schema: Arc::clone(schema),
            rows: 0,
            writer,
        })
    }

    /// Where it will be.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How many rows it has.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// How many bytes of rows it holds in memory until they are a row group.
    pub(super) fn held(&self) -> usize {
        match &self.writer {
            Writer::Parquet(writer) => writer.in_progress_size(),
            Writer::Lines { .. } => 0,
        }
    }

    /// Its columns.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Appends rows.
    ///
    /// # Errors
    /// `Invalid` for a value that the format cannot hold; what the store says.
    pub(super) async fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        self.rows += rows.num_rows() as u64;
        match &mut self.writer {
            Writer::Parquet(writer) => {
                let written = writer.write(rows).await;
                written.map_err(|e| failed(&self.path, e))
            }
            Writer::Lines { upload, lines } => {
                let mut text = Vec::new();
                lines.encode(rows, &mut text)?;
                let put = upload.put(text.into()).await;
                put.map_err(|e| Error::from(e).context(format_args!("writing `{}`", self.path)))
            }
        }
    }

    /// Appends lines as they are, from another file of the same format.
    ///
    /// # Errors
    /// What the store says.
    pub(super) async fn write_lines(&mut self, text: bytes::Bytes) -> Result<()> {
        match &mut self.writer {
            Writer::Lines { upload, .. } => Ok(upload.put(text).await?),
            Writer::Parquet(_) => Err(Error::internal("a Parquet file has no lines")),
        }
    }

    /// Makes a row group of what is held in memory.
    ///
    /// # Errors
    /// What the store says.
    pub(super) async fn flush(&mut self) -> Result<()> {
        match &mut self.writer {
            Writer::Parquet(writer) => writer.flush().await.map_err(|e| failed(&self.path, e)),
            Writer::Lines { .. } => Ok(()),
        }
    }

    /// Makes the file exist.
    ///
    /// # Errors
    /// What the store says.
    pub(super) async fn finish(self) -> Result<()> {
        match self.writer {
            Writer::Parquet(writer) => {
                writer.close().await.map_err(|e| failed(&self.path, e))?;
            }
            Writer::Lines { mut upload, .. } => {
                let shut = upload.shutdown().await;
                let path = &self.path;
                shut.map_err(|e| Error::from(e).context(format_args!("writing `{path}`")))?;
            }
        }
        Ok(())
    }

    /// Gives the file up; parts of it that were uploaded are given up too, as far as that is possible.
    pub(super) async fn abort(self) {
        let mut upload = match self.writer {
            Writer::Parquet(writer) => writer.into_inner(),
            Writer::Lines { upload, .. } => *upload,
        };
        if let Err(error) = upload.abort().await {
            tracing::warn!(path = %self.path, %error, "an unfinished file was not given up");
        }
    }
}

/// The store's failure comes out as such; all else is about the rows.
pub(super) fn failed(path: &Path, error: ParquetError) -> Error {
    let doing = format!("Parquet file `{path}`: {error}");
    match error {
        ParquetError::External(_) => Error::unavailable(doing).with_source(error),
        _ => Error::invalid(doing).with_source(error),
    }
}
