//! Seeded random schemas, rows, splits and aggregate queries: the same seed, the same case, always.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::scalar::ScalarValue;
use highwater::Result;

use crate::rng::Rng;

/// The types random columns have.
pub const TYPES: [DataType; 8] = [
    DataType::Boolean,
    DataType::Int32,
    DataType::Int64,
    DataType::Float64,
    DataType::Utf8View,
    DataType::Date32,
    DataType::Timestamp(TimeUnit::Microsecond, None),
    DataType::Decimal128(10, 2),
];

/// A random case: a schema, all rows of the input, and a query over the table `input`.
#[derive(Clone, Debug)]
pub struct RandomCase {
    /// The seed that gives it again.
    pub seed: u64,
    /// The columns, `c0`, `c1`, …
    pub schema: SchemaRef,
    /// The rows.
    pub rows: RecordBatch,
    /// The aggregate query.
    pub query: RandomQuery,
    /// How the rows are cut, and what happens between.
    pub plan: Vec<Action>,
}

/// A random aggregate query.
#[derive(Clone, Debug)]
pub struct RandomQuery {
    /// The SELECT.
    pub sql: String,
    /// How many of the first columns are the key.
    pub keys: usize,
}

/// What happens to the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The next so many rows come and are processed.
    Feed(usize),
    /// The next so many rows come, the sink fails, and the query is run again.
    Crash(usize),
    /// The query stops and starts again.
    Restart,
}

impl RandomCase {
    /// The case of a seed; `having` allows a filter above the aggregate.
    ///
    /// # Errors
    /// When the rows do not fit their schema, which would be a mistake of this file.
    pub fn new(seed: u64, having: bool) -> Result<Self> {
        let mut rng = Rng::new(seed);
        let schema = schema(&mut rng);
        let count = rng.below(120);
        let rows = rows(&mut rng, &schema, count)?;
        let query = query(&mut rng, &schema, having);
        let plan = plan(&mut rng, count);
        Ok(Self {
            seed,
            schema,
            rows,
            query,
            plan,
        })
    }
}

/// Two to six columns of random types.
fn schema(rng: &mut Rng) -> SchemaRef {
    let fields: Vec<Field> = (0..2 + rng.below(5))
        .map(|i| Field::new(format!("c{i}"), rng.pick(&TYPES).clone(), true))
        .collect();
    Arc::new(Schema::new(fields))
}

/// Rows of small domains with nulls, so that keys meet again.
///
/// # Errors
/// When a type has no random values.
pub fn rows(rng: &mut Rng, schema: &SchemaRef, count: usize) -> Result<RecordBatch> {
    if count == 0 {
        return Ok(RecordBatch::new_empty(Arc::clone(schema)));
    }
    let columns = schema
        .fields()
        .iter()
        .map(|field| {
            let values = (0..count)
                .map(|_| value(rng, field.data_type()))
                .collect::<Result<Vec<_>>>()?;
            Ok(ScalarValue::iter_to_array(values)?)
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

fn value(rng: &mut Rng, data_type: &DataType) -> Result<ScalarValue> {
    if rng.chance(12) {
        return Ok(ScalarValue::try_from(data_type)?);
    }
    let small = rng.between(-4, 9);
    let value = match data_type {
        DataType::Boolean => ScalarValue::Boolean(Some(rng.chance(50))),
        DataType::Int32 | DataType::Int64 => ScalarValue::Int64(Some(small)),
        DataType::Float64 => ScalarValue::Float64(Some(double(rng))),
        DataType::Date32 => ScalarValue::Date32(i32::try_from(19_800 + small).ok()),
        DataType::Timestamp(_, _) => {
            ScalarValue::TimestampMicrosecond(Some(1_709_294_400_000_000 + small * 1_700_003), None)
        }
        DataType::Decimal128(precision, scale) => {
            ScalarValue::Decimal128(Some(i128::from(small) * 37), *precision, *scale)
        }
        _ => ScalarValue::Utf8View(Some(text(rng))),
    };
    Ok(value.cast_to(data_type)?)
}

fn double(rng: &mut Rng) -> f64 {
    match rng.below(12) {
        0 => 0.0,
        1 => -0.0,
        _ => rng.between(-40, 90) as f64 / 8.0,
    }
}

/// Short and long strings: some fit into a view, some do not.
fn text(rng: &mut Rng) -> String {
    let words = [
        "",
        "a",
        "b",
        "ab",
        "übermäßig lang, länger als zwölf Bytes",
        "c",
    ];
    (*rng.pick(&words)).to_owned()
}

fn query(rng: &mut Rng, schema: &SchemaRef, having: bool) -> RandomQuery {
    let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    let keys: Vec<String> = (0..rng.below(3).min(names.len() - 1))
        .map(|i| format!("c{i}"))
        .collect();
    let mut columns = keys.clone();
    for i in 0..1 + rng.below(4) {
        columns.push(format!("{} AS a{i}", aggregate(rng, schema)));
    }
    let mut sql = format!("SELECT {} FROM input", columns.join(", "));
    if rng.chance(40) {
        sql.push_str(&format!(" WHERE {} IS NOT NULL", rng.pick(&names)));
    }
    if !keys.is_empty() {
        sql.push_str(&format!(" GROUP BY {}", keys.join(", ")));
    }
    if having && rng.chance(50) {
        sql.push_str(" HAVING count(*) > 1");
    }
    RandomQuery {
        sql,
        keys: keys.len(),
    }
}

fn aggregate(rng: &mut Rng, schema: &SchemaRef) -> String {
    let field = rng.pick(schema.fields());
    let name = field.name();
    let numeric = field.data_type().is_numeric();
    let mut choices = vec!["count(*)", "count({})", "count(DISTINCT {})"];
    match field.data_type() {
        DataType::Boolean => choices.extend(["bool_and({})", "bool_or({})"]),
        _ => choices.extend(["min({})", "max({})"]),
    }
    if numeric {
        choices.extend(["sum({})", "avg({})", "sum(DISTINCT {})"]);
    }
    if matches!(field.data_type(), DataType::Float64 | DataType::Int64) {
        choices.extend(["stddev({})", "var_pop({})"]);
    }
    let call = rng.pick(&choices).replace("{}", name);
    if rng.chance(25) {
        return format!(
            "{call} FILTER (WHERE {} IS NOT NULL)",
            rng.pick(schema.fields()).name()
        );
    }
    call
}

/// Cuts `count` rows into micro-batches, some of them empty, with restarts and crashes between.
pub fn plan(rng: &mut Rng, count: usize) -> Vec<Action> {
    let mut plan = Vec::new();
    let mut left = count;
    while left > 0 {
        let size = rng.below(30).min(left);
        left -= size;
        plan.push(match rng.below(10) {
            0 => Action::Crash(size),
            _ => Action::Feed(size),
        });
        if rng.chance(20) {
            plan.push(Action::Restart);
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_is_the_same_case() {
        let (a, b) = (
            RandomCase::new(7, true).unwrap(),
            RandomCase::new(7, true).unwrap(),
        );
        assert_eq!(a.query.sql, b.query.sql);
        assert_eq!(a.rows, b.rows);
        assert_eq!(a.plan, b.plan);
    }

    #[test]
    fn a_plan_feeds_every_row() {
        for seed in 0..50 {
            let fed: usize = plan(&mut Rng::new(seed), 77)
                .iter()
                .map(|action| match action {
                    Action::Feed(n) | Action::Crash(n) => *n,
                    Action::Restart => 0,
                })
                .sum();
            assert_eq!(fed, 77, "seed {seed}");
        }
    }
}
