//! Batch actions: DataFusion's, refused on a streaming frame with Spark's meaning.

use arrow::array::RecordBatch;
use datafusion::common::config::{CsvOptions, JsonOptions, TableParquetOptions};
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::execution::SendableRecordBatchStream;

use super::StreamFrame;
use crate::Result;

impl StreamFrame {
    /// All rows.
    ///
    /// # Errors
    /// `Unsupported` on a streaming frame; so for all calls here. Else what the query fails with.
    pub async fn collect(self) -> Result<Vec<RecordBatch>> {
        self.must_be_batch("collect")?;
        Ok(Box::pin(self.frame.collect()).await?)
    }

    /// Prints all rows.
    ///
    /// # Errors
    /// As for [`collect`](Self::collect).
    pub async fn show(self) -> Result<()> {
        self.must_be_batch("show")?;
        Ok(Box::pin(self.frame.show()).await?)
    }

    /// Prints the first `rows` rows.
    ///
    /// # Errors
    /// As for [`collect`](Self::collect).
    pub async fn show_limit(self, rows: usize) -> Result<()> {
        self.must_be_batch("show_limit")?;
        Ok(Box::pin(self.frame.show_limit(rows)).await?)
    }

    /// The number of rows.
    ///
    /// # Errors
    /// As for [`collect`](Self::collect).
    pub async fn count(self) -> Result<usize> {
        self.must_be_batch("count")?;
        Ok(Box::pin(self.frame.count()).await?)
    }

    /// All rows as a table of text.
    ///
    /// # Errors
    /// As for [`collect`](Self::collect).
    pub async fn to_string(self) -> Result<String> {
        self.must_be_batch("to_string")?;
        Ok(Box::pin(self.frame.to_string()).await?)
    }

    /// The rows computed now and held in memory.
    ///
    /// # Errors
    /// As for [`collect`](Self::collect).
    pub async fn cache(self) -> Result<Self> {
        self.must_be_batch("cache")?;
        let frame = Box::pin(self.frame.cache()).await?;
        Ok(Self::new(self.session, frame))
    }

    /// The rows, as they are computed.
    ///
    /// # Errors
    /// As for [`collect`](Self::collect).
    pub async fn execute_stream(self) -> Result<SendableRecordBatchStream> {
        self.must_be_batch("execute_stream")?;
        Ok(Box::pin(self.frame.execute_stream()).await?)
    }

    /// Writes the rows as CSV.
    ///
    /// # Errors
    /// As for [`collect`](Self::collect).
    pub async fn write_csv(
        self,
        path: &str,
        options: DataFrameWriteOptions,
        csv: Option<CsvOptions>,
    ) -> Result<Vec<RecordBatch>> {
        self.must_be_batch("write_csv")?;
        Ok(Box::pin(self.frame.write_csv(path, options, csv)).await?)
    }

    /// Writes the rows as lines of JSON.
    ///
    /// # Errors
    /// As for [`collect`](Self::collect).
    pub async fn write_json(
        self,
        path: &str,
        options: DataFrameWriteOptions,
        json: Option<JsonOptions>,
    ) -> Result<Vec<RecordBatch>> {
        self.must_be_batch("write_json")?;
        Ok(Box::pin(self.frame.write_json(path, options, json)).await?)
    }

    /// Writes the rows as Parquet.
    ///
    /// # Errors
    /// As for [`collect`](Self::collect).
    pub async fn write_parquet(
        self,
        path: &str,
        options: DataFrameWriteOptions,
        parquet: Option<TableParquetOptions>,
    ) -> Result<Vec<RecordBatch>> {
        self.must_be_batch("write_parquet")?;
        Ok(Box::pin(self.frame.write_parquet(path, options, parquet)).await?)
    }

    /// Inserts the rows into a table.
    ///
    /// # Errors
    /// As for [`collect`](Self::collect).
    pub async fn write_table(
        self,
        table: &str,
        options: DataFrameWriteOptions,
    ) -> Result<Vec<RecordBatch>> {
        self.must_be_batch("write_table")?;
        Ok(Box::pin(self.frame.write_table(table, options)).await?)
    }
}
