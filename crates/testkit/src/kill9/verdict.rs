//! The comparison: what the queries wrote against DataFusion's batch answer over all rows of the load, row by row.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use datafusion::datasource::MemTable;
use highwater::prelude::*;
use highwater::{Result, parse_schema};

use super::load::{self, SCHEMA};
use super::place::{Place, names};
use super::queries::{Query, SinkKind};
use crate::value;

/// What came of one query.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The query.
    pub query: Query,
    /// Rows that it must come to.
    pub expected: usize,
    /// What differs: the number of rows and the first of them; `None` when it is exact.
    pub difference: Option<String>,
}

/// Compares all queries with the load of `seed`, which has `files` files.
///
/// # Errors
/// When an output cannot be read, or a micro-batch is missing in it.
pub async fn compare(place: &Place, sink: SinkKind, seed: u64, files: u64) -> Result<Vec<Verdict>> {
    let context = SessionContext::new();
    let load = (0..files).map(|file| load::batch(seed, file));
    let load = load.collect::<Result<Vec<_>>>()?;
    register(&context, "input", Arc::new(parse_schema(SCHEMA)?), load)?;
    let mut verdicts = Vec::new();
    for query in Query::ALL {
        verdicts.push(judge(&context, place, sink, query).await?);
    }
    Ok(verdicts)
}

async fn judge(
    context: &SessionContext,
    place: &Place,
    sink: SinkKind,
    query: Query,
) -> Result<Verdict> {
    let schema = Arc::new(parse_schema(query.columns())?);
    let folder = place.output(query);
    let (schema, rows) = match sink.of(query) {
        SinkKind::Foreach => lines(&folder, &schema)?,
        SinkKind::Parquet => parquet(&folder, &schema).await?,
    };
    register(context, "written", schema, rows)?;
    let columns = column_names(query)?;
    let written = match query {
        Query::Keys => last_of_each_key(&columns),
        Query::Projection | Query::Windows => format!("SELECT {columns} FROM written"),
    };
    let expected = query.batch();
    let differs = format!(
        "SELECT {columns}, sum(side) AS missing FROM (SELECT {columns}, 1 AS side FROM ({expected}) \
         UNION ALL SELECT {columns}, -1 AS side FROM ({written})) \
         GROUP BY {columns} HAVING sum(side) <> 0 ORDER BY {columns}"
    );
    let differs = value::rows(&context.sql(&differs).await?.collect().await?)?;
    let shown: Vec<String> = differs
        .iter()
        .take(10)
        .map(|row| value::show(row))
        .collect();
    let difference = format!(
        "{} rows differ; the last column is 1 for a row that is missing, -1 for one too many:\n{}",
        differs.len(),
        shown.join("\n")
    );
    Ok(Verdict {
        query,
        expected: context.sql(&expected).await?.count().await?,
        difference: (!differs.is_empty()).then_some(difference),
    })
}

/// What a reader of an update stream holds at the end.
fn last_of_each_key(columns: &str) -> String {
    format!(
        "SELECT {columns} FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY batch DESC) AS place \
         FROM written) WHERE place = 1"
    )
}

fn column_names(query: Query) -> Result<String> {
    let schema = parse_schema(query.columns())?;
    let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    Ok(names.join(", "))
}

fn register(
    context: &SessionContext,
    name: &str,
    schema: SchemaRef,
    rows: Vec<RecordBatch>,
) -> Result<()> {
    let table = MemTable::try_new(schema, vec![rows])?;
    context.deregister_table(name)?;
    context.register_table(name, Arc::new(table))?;
    Ok(())
}

/// The rows of all files of `foreach_batch`, with the number of their micro-batch as a last column.
fn lines(folder: &Path, schema: &SchemaRef) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let mut fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone()).collect();
    fields.push(Field::new("batch", DataType::Int64, false));
    let with_batch = Arc::new(Schema::new(fields));
    let files: BTreeMap<i64, String> = names(folder)?
        .into_iter()
        .filter_map(|name| Some((name.strip_suffix(".jsonl")?.parse().ok()?, name)))
        .collect();
    if let Some(missing) = (0..).zip(files.keys()).find(|(at, id)| at != *id) {
        let folder = folder.display();
        let missing = missing.0;
        return Err(Error::corrupt(format!(
            "{folder} has no file of micro-batch {missing}"
        )));
    }
    let mut rows = Vec::new();
    for (id, name) in &files {
        let text = fs::read(folder.join(name))?;
        for batch in ReaderBuilder::new(Arc::clone(schema)).build(text.as_slice())? {
            let batch = batch?;
            let mut columns = batch.columns().to_vec();
            columns.push(Arc::new(Int64Array::from_value(*id, batch.num_rows())));
            rows.push(RecordBatch::try_new(Arc::clone(&with_batch), columns)?);
        }
    }
    Ok((with_batch, rows))
}

/// The committed rows of the file sink, as a stream of ours reads them.
async fn parquet(folder: &Path, schema: &SchemaRef) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let session = StreamSession::new();
    let path = folder.to_string_lossy();
    let written = session.read_stream().schema(schema).parquet(path).await?;
    let query = written
        .write_stream()
        .format("memory")
        .query_name("written")
        .trigger(Trigger::AvailableNow)
        .start()
        .await?;
    query.await_termination().await?;
    let rows = session.table("written").await?.collect().await?;
    let schema = rows
        .first()
        .map_or_else(|| Arc::clone(schema), RecordBatch::schema);
    Ok((schema, rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes what the batch engine says, in three micro-batches, and lets `spoil` change it.
    async fn compared(spoil: impl Fn(&Place)) -> Vec<bool> {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new(folder.path());
        let context = SessionContext::new();
        let load: Vec<RecordBatch> = (0..200).map(|file| load::batch(5, file).unwrap()).collect();
        let schema = Arc::new(parse_schema(SCHEMA).unwrap());
        register(&context, "input", schema, load).unwrap();
        for query in Query::ALL {
            fs::create_dir_all(place.output(query)).unwrap();
            let rows = context.sql(&query.batch()).await.unwrap();
            let rows = rows.collect().await.unwrap();
            let mut lines = arrow::json::LineDelimitedWriter::new(Vec::new());
            rows.iter().for_each(|batch| lines.write(batch).unwrap());
            let text = String::from_utf8(lines.into_inner()).unwrap();
            let all: Vec<&str> = text.lines().collect();
            for (id, part) in all.chunks(all.len().div_ceil(3)).enumerate() {
                let file = place.output(query).join(format!("{id}.jsonl"));
                fs::write(file, part.join("\n")).unwrap();
            }
        }
        spoil(&place);
        let verdicts = compare(&place, SinkKind::Foreach, 5, 200).await.unwrap();
        verdicts.iter().map(|v| v.difference.is_none()).collect()
    }

    #[tokio::test]
    async fn exact_is_exact_and_one_row_less_or_more_is_not() {
        assert_eq!(compared(|_| ()).await, [true, true, true]);
        let change = |query: Query, change: fn(&str) -> String| {
            move |place: &Place| {
                let file = place.output(query).join("1.jsonl");
                let text = fs::read_to_string(&file).unwrap();
                fs::write(file, change(&text)).unwrap();
            }
        };
        let less = |text: &str| text.split_once('\n').unwrap().1.to_owned();
        let twice = |text: &str| format!("{}\n{text}", text.lines().next().unwrap());
        let lost = compared(change(Query::Projection, less)).await;
        assert_eq!(lost, [false, true, true]);
        let doubled = compared(change(Query::Windows, twice)).await;
        assert_eq!(doubled, [true, false, true]);
        let lost = compared(change(Query::Keys, less)).await;
        assert_eq!(lost, [true, true, false]);
    }
}
