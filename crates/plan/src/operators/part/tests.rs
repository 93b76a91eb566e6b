//! The parts of every kind of state, put into a fresh operator, go on as the state they were taken of.

use std::sync::Arc;

use highwater_core::OutputMode;

use super::Part;
use crate::IncrementalPlan;
use crate::nodes::deduplicate;
use crate::operators::StatefulOperator;
use crate::testing::{Fixture, Row, lines, run};

/// What is run over `events`.
enum Query {
    Sql(&'static str, OutputMode),
    FirstOf(&'static str),
}

const QUERIES: [Query; 5] = [
    Query::Sql(
        "SELECT k, window(ts, '10 seconds') AS w, count(*) AS n, sum(v) AS s, array_agg(v) AS a \
         FROM events GROUP BY k, window(ts, '10 seconds')",
        OutputMode::Update,
    ),
    Query::Sql(
        "SELECT count(*) AS n, max(v) AS v FROM events",
        OutputMode::Complete,
    ),
    Query::Sql(
        "SELECT k, session_window(ts, '5 seconds') AS w, count(*) AS n, max(v) AS v \
         FROM events GROUP BY k, session_window(ts, '5 seconds')",
        OutputMode::Complete,
    ),
    Query::FirstOf("k"),
    Query::Sql("SELECT k, v FROM events LIMIT 900", OutputMode::Append),
];

impl Query {
    async fn plan(&self, fixture: &Fixture) -> IncrementalPlan {
        match self {
            Self::Sql(sql, mode) => fixture.plan(sql, *mode).await.expect(sql),
            Self::FirstOf(column) => {
                let scan = fixture.logical("SELECT * FROM events").await;
                let plan = deduplicate(scan.expect("a scan"), &[*column], false).expect("a plan");
                let plan = fixture.incremental(plan, OutputMode::Append).await;
                plan.expect("planned")
            }
        }
    }
}

/// Rows of many keys, each a few times, in sessions that meet and do not.
fn rows(from: u64, keys: &[String]) -> Vec<Row<'_>> {
    (from..from + 400)
        .map(|n| {
            let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
            let key = &keys[(mixed % keys.len() as u64) as usize];
            let seconds = (mixed >> 9) % 200;
            (Some(seconds as i64 * 1_000_000), key.as_str(), n as i64)
        })
        .collect()
}

fn parts(operator: &Arc<dyn StatefulOperator>, of: u32) -> Vec<arrow::array::RecordBatch> {
    let part = |number| operator.part(Part { number, of }).expect("a part");
    (0..of).rev().flat_map(part).collect()
}

#[tokio::test]
async fn the_parts_put_together_go_on_as_the_state() {
    let keys: Vec<String> = (0..150).map(|n| format!("key {n}")).collect();
    for query in &QUERIES {
        let fixture = Fixture::new();
        for n in 0..4 {
            fixture.events.add(&rows(n * 400, &keys));
        }
        let plan = query.plan(&fixture).await;
        for id in 0..2 {
            run(&plan, id).await.expect("a micro-batch");
        }
        let [operator] = plan.operators() else {
            panic!("one operator");
        };
        let whole = lines(&parts(operator, 1));
        assert_eq!(whole.len() as u64, operator.metrics().rows_total);
        let mut others = Vec::new();
        for of in [1, 2, 16, 4_096] {
            let parts = parts(operator, of);
            assert_eq!(lines(&parts), whole, "{of} parts");
            let other = query.plan(&fixture).await;
            for part in &parts {
                let columns = operator.state_schema();
                let fields = columns.keys.fields().len() + columns.values.fields().len();
                assert_eq!(part.num_columns(), fields);
                assert!(part.schema_ref().metadata().is_empty(), "no notes");
                other.operators()[0].restore(part).expect("restored");
            }
            others.push(other);
        }
        for id in 2..4 {
            let expected = lines(&run(&plan, id).await.expect("a micro-batch"));
            for other in &others {
                let found = lines(&run(other, id).await.expect("a micro-batch"));
                assert_eq!(found, expected, "{}", operator.name());
            }
        }
    }
}
