//! Batch SQL under Spark's semantics against what Spark 4.3 answers.

use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::scalar::ScalarValue;

use super::SqlSemantics;

fn context(semantics: SqlSemantics) -> SessionContext {
    let state = SessionStateBuilder::new()
        .with_config(SessionConfig::new().with_target_partitions(1))
        .with_default_features()
        .build();
    SessionContext::new_with_state(semantics.install(state).expect("installed"))
}

async fn table(ctx: &SessionContext) {
    ctx.sql(
        "CREATE TABLE t (k STRING, v BIGINT, i INT, x DOUBLE, d DECIMAL(10,2), ts TIMESTAMP) AS VALUES
         ('a', 7, 1, 0.0, 1.10, '2024-03-01 12:00:01.5'), ('b', -7, 2, CAST('NaN' AS DOUBLE), 2.25, NULL),
         (NULL, NULL, NULL, NULL, NULL, NULL)",
    )
    .await
    .expect("created")
    .collect()
    .await
    .expect("created");
}

/// The first value of the answer, as text; `NULL`, or the error's text after `!`.
async fn answer(ctx: &SessionContext, sql: &str) -> String {
    let batches = match ctx.sql(sql).await {
        Ok(frame) => frame.collect().await,
        Err(e) => Err(e),
    };
    let error = match batches {
        Ok(batches) => {
            let value = ScalarValue::try_from_array(batches[0].column(0), 0).expect("a value");
            return if value.is_null() {
                "NULL".into()
            } else {
                value.to_string()
            };
        }
        Err(e) => crate::Error::from(e),
    };
    format!("!{}", error.condition().unwrap_or(error.message()))
}

#[tokio::test]
async fn operators_and_functions_answer_as_spark_does() {
    let ctx = context(SqlSemantics::Spark);
    table(&ctx).await;
    let mut wrong = Vec::new();
    for (sql, expected) in [
        ("SELECT 7 / 2", "3.5"),
        ("SELECT v / 2 FROM t WHERE k = 'a'", "3.5"),
        ("SELECT v % -4 FROM t WHERE k = 'b'", "-3"),
        (
            "SELECT 9223372036854775807 + v FROM t WHERE k = 'a'",
            "!ARITHMETIC_OVERFLOW",
        ),
        ("SELECT 9223372036854775807 + 1", "!ARITHMETIC_OVERFLOW"),
        (
            "SELECT 2147483647 + i FROM t WHERE k = 'a'",
            "!ARITHMETIC_OVERFLOW",
        ),
        (
            "SELECT v * 9000000000000000000 FROM t WHERE k = 'a'",
            "!ARITHMETIC_OVERFLOW",
        ),
        (
            "SELECT -(v - 9223372036854775801) FROM t WHERE k = 'b'",
            "!ARITHMETIC_OVERFLOW",
        ),
        ("SELECT v / 0 FROM t", "!DIVIDE_BY_ZERO"),
        ("SELECT v % 0 FROM t", "!REMAINDER_BY_ZERO"),
        ("SELECT x / x FROM t WHERE k = 'a'", "!DIVIDE_BY_ZERO"),
        ("SELECT v / 0 FROM t WHERE k IS NULL", "NULL"),
        ("SELECT d * d FROM t WHERE k = 'a'", "1.2100"),
        ("SELECT d / 3 FROM t WHERE k = 'a'", "0.366667"),
        ("SELECT d + 1 FROM t WHERE k = 'b'", "3.25"),
        ("SELECT '3' + v FROM t WHERE k = 'a'", "10"),
        ("SELECT concat('a', NULL)", "NULL"),
        ("SELECT greatest(1, NULL, 3)", "3"),
        ("SELECT round(CAST(2.5 AS DOUBLE))", "3"),
        ("SELECT round(CAST(1.25 AS DOUBLE), 1)", "1.3"),
        ("SELECT floor(CAST(-2.5 AS DOUBLE))", "-3"),
        ("SELECT length('éa')", "2"),
        ("SELECT substring('banana', 2, 3)", "ana"),
        ("SELECT substring('banana' FROM -3 FOR 2)", "an"),
        ("SELECT year(DATE '2024-02-29')", "2024"),
        ("SELECT month(ts) FROM t WHERE k = 'a'", "3"),
        ("SELECT day(ts) FROM t WHERE k = 'a'", "1"),
        ("SELECT dayofweek(DATE '2024-03-03')", "1"),
        (
            "SELECT timestamp_seconds(1709294400) = TIMESTAMP '2024-03-01 12:00:00'",
            "true",
        ),
        (
            "SELECT date_trunc('month', ts) = TIMESTAMP '2024-03-01 00:00:00' FROM t WHERE k = 'a'",
            "true",
        ),
        ("SELECT CAST(' 12 ' AS BIGINT)", "12"),
        ("SELECT CAST(CAST(1e10 AS DOUBLE) AS STRING)", "1.0E10"),
        ("SELECT CAST(CAST(0.001 AS DOUBLE) AS STRING)", "0.001"),
        (
            "SELECT CAST(CAST(123456.75 AS DOUBLE) AS STRING)",
            "123456.75",
        ),
        (
            "SELECT CAST(ts AS STRING) FROM t WHERE k = 'a'",
            "2024-03-01 12:00:01.5",
        ),
        ("SELECT k FROM t ORDER BY k LIMIT 1", "NULL"),
        ("SELECT k FROM t ORDER BY k DESC LIMIT 1", "b"),
        ("SELECT count(*) FROM t WHERE x = -0.0E0", "1"),
        (
            "SELECT count(*) FROM t WHERE x > CAST('Infinity' AS DOUBLE)",
            "1",
        ),
        (
            "SELECT sum(v) FROM (VALUES (9223372036854775807), (1)) AS u(v)",
            "!ARITHMETIC_OVERFLOW",
        ),
        ("SELECT sum(i) FROM t", "3"),
        ("SELECT sum(d) FROM t", "3.35"),
        (
            "SELECT avg(d) FROM (VALUES (CAST(0.1 AS DECIMAL(8,3))), (0.205), (0.3)) AS u(d)",
            "0.2016667",
        ),
        ("SELECT avg(v) FROM t", "0"),
        ("SELECT max(x) FROM t", "NaN"),
        ("SELECT min(x) FROM t", "0"),
        ("SELECT bool_and(v > 0) FROM t", "false"),
        ("SELECT abs(v) FROM t WHERE k = 'b'", "7"),
        ("SELECT 0.1 + 0.2", "0.3"),
        (
            "SELECT k, sum(v) / 2 AS h FROM t GROUP BY k HAVING sum(v) / 2 > 3",
            "a",
        ),
        (
            "SELECT v + 1 FROM t GROUP BY v + 1 ORDER BY 1 DESC LIMIT 1",
            "8",
        ),
        ("SELECT count(*) FROM t WHERE x < 2.5", "1"),
        ("SELECT count(*) FROM t WHERE x BETWEEN -0.5 AND 2.5", "1"),
        ("SELECT coalesce(x, 1.5) FROM t WHERE k IS NULL", "1.5"),
        (
            "SELECT CASE WHEN k IS NULL THEN 0.5 ELSE x END FROM t WHERE k = 'b'",
            "NaN",
        ),
        ("SELECT approx_percentile_cont(v, 0.5) FROM t", "0"),
    ] {
        let found = answer(&ctx, sql).await;
        if found != expected {
            wrong.push(format!("{sql}: {found}, not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn expressions_built_in_rust_have_the_same_meaning() {
    use datafusion::functions::expr_fn::concat;
    use datafusion::functions_aggregate::expr_fn::{max, sum};
    use datafusion::prelude::{col, lit};

    let ctx = context(SqlSemantics::Spark);
    table(&ctx).await;
    let null = lit(ScalarValue::Utf8(None));
    let expr = |e| async {
        let frame = ctx.table("t").await?.filter(col("k").eq(lit("a")))?;
        frame.select(vec![e])?.collect().await
    };
    for (e, expected) in [
        (col("v") / lit(2), "3.5"),
        (-col("v"), "-7"),
        (concat(vec![col("k"), null.clone()]), "NULL"),
        (col("x").eq(lit(-0.0)), "true"),
    ] {
        let name = e.to_string();
        let rows = expr(e).await.expect("computed");
        let value = ScalarValue::try_from_array(rows[0].column(0), 0).expect("a value");
        assert_eq!(value.to_string(), expected, "{name}");
    }
    assert!(expr(col("v") * lit(i64::MAX)).await.is_err());
    let aggregated = |e| async {
        let frame = ctx.table("t").await?;
        frame.aggregate(vec![], vec![e])?.collect().await
    };
    let rows = aggregated(max(col("x"))).await.expect("computed");
    let value = ScalarValue::try_from_array(rows[0].column(0), 0).expect("a value");
    assert_eq!(value.to_string(), "NaN");
    let big = lit(i64::MAX - 6) * col("i") / lit(1_i64);
    assert!(
        aggregated(sum(datafusion::prelude::cast(
            big,
            arrow::datatypes::DataType::Int64
        )))
        .await
        .is_err()
    );
}

#[tokio::test]
async fn a_bad_cast_is_an_error() {
    let ctx = context(SqlSemantics::Spark);
    let frame = ctx
        .sql("SELECT CAST(k AS BIGINT) FROM (VALUES ('x1')) AS t(k)")
        .await;
    let result = match frame {
        Ok(frame) => frame.collect().await,
        Err(e) => Err(e),
    };
    assert!(result.is_err());
}

#[tokio::test]
async fn datafusion_keeps_its_own_meaning() {
    let ctx = context(SqlSemantics::DataFusion);
    table(&ctx).await;
    for (sql, expected) in [
        ("SELECT 7 / 2", "3"),
        ("SELECT concat('a', NULL)", "a"),
        ("SELECT k FROM t ORDER BY k LIMIT 1", "a"),
        (
            "SELECT sum(v) FROM (VALUES (9223372036854775807), (1)) AS u(v)",
            "-9223372036854775808",
        ),
    ] {
        assert_eq!(answer(&ctx, sql).await, expected, "{sql}");
    }
}
