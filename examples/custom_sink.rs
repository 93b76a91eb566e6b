//! What you learn: a sink of your own is one trait. This one is exactly once: each micro-batch is
//! one file named by its id, written aside and renamed, so running it again changes nothing.
//!
//! `cargo run --release --example custom_sink`

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;

use futures::TryStreamExt;
use highwater::datafusion::arrow::csv::Writer;
use highwater::prelude::*;
use highwater::{BatchOutput, Guarantee, Result, Sink, SinkCommit, async_trait};

/// A folder of CSV files, one for each micro-batch that has rows.
#[derive(Debug)]
struct CsvFolder {
    folder: PathBuf,
}

#[async_trait]
impl Sink for CsvFolder {
    fn description(&self) -> String {
        format!("CsvFolder({})", self.folder.display())
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn supports(&self, mode: OutputMode) -> bool {
        mode == OutputMode::Append // a file cannot take back what it said
    }

    async fn write(&self, mut output: BatchOutput) -> Result<SinkCommit> {
        let aside = self.folder.join(format!(".batch-{}", output.id));
        let mut file = Writer::new(File::create(&aside)?);
        let mut rows = 0;
        while let Some(batch) = output.stream.try_next().await? {
            rows += batch.num_rows() as u64;
            file.write(&batch)?;
        }
        drop(file);
        // From here on the micro-batch is visible; a stream that failed above never got here.
        fs::rename(aside, self.folder.join(format!("batch-{}.csv", output.id)))?;
        Ok(SinkCommit::rows(rows))
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let work = tempfile::tempdir()?;
    let folder = work.path().join("even");
    fs::create_dir(&folder)?;

    let session = StreamSession::new();
    let numbers = MemoryStream::new(&session, "n BIGINT")?;
    let query = numbers
        .to_frame()
        .filter((col("n") % lit(2)).eq(lit(0)))?
        .write_stream()
        .sink(Arc::new(CsvFolder {
            folder: folder.clone(),
        }))
        .checkpoint_location(work.path().join("checkpoint").to_string_lossy())
        .start()
        .await?;
    for first in [0_i64, 10, 20] {
        numbers.add_data((first..first + 10).map(|n| (n,)))?;
        query.process_all_available().await?;
    }
    query.stop().await?;

    let context = session.context();
    let files = CsvReadOptions::new().file_extension(".csv");
    let written = context.read_csv(&*folder.to_string_lossy(), files).await?;
    let written = session.frame(written);
    written.sort_by(vec![col("n")])?.show().await
}
