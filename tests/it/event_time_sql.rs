//! `STREAM t` and `WATERMARK … DELAY OF …` in SQL: what they mean, what they leave alone, how mistakes are told.

use highwater::datafusion::logical_expr::LogicalPlan;
use highwater::prelude::*;
use highwater::{Position, Result, SqlSemantics};

/// A stream `pumps` with the view `mixed`, whose columns have capitals, and a table `places`.
async fn session(semantics: SqlSemantics) -> Result<(StreamSession, MemoryStream)> {
    let session = StreamSession::builder().semantics(semantics).build()?;
    let schema = "ts TIMESTAMP, pump STRING, psi DOUBLE, watermark TIMESTAMP, delay TIMESTAMP";
    let pumps = MemoryStream::new(&session, schema)?;
    for view in ["pumps", "stream", "watermark"] {
        pumps.to_frame().create_or_replace_temp_view(view)?;
    }
    let mixed = pumps
        .to_frame()
        .select([col("ts").alias("Ts"), col("pump").alias("Pump")])?;
    mixed.create_or_replace_temp_view("mixed")?;
    let places = "CREATE TABLE places AS SELECT 'a' AS pump, now()::TIMESTAMP AS built";
    session.sql(places).await?.collect().await?;
    Ok((session, pumps))
}

/// What the watermark nodes of the plan say, and its columns.
fn told(frame: &StreamFrame) -> (Vec<String>, Vec<String>) {
    fn collect(plan: &LogicalPlan, nodes: &mut Vec<String>) {
        if let LogicalPlan::Extension(extension) = plan
            && extension.node.name() == "EventTimeWatermark"
        {
            nodes.push(
                plan.display()
                    .to_string()
                    .replace("EventTimeWatermark: ", ""),
            );
        }
        for input in plan.inputs() {
            collect(input, nodes);
        }
    }
    let mut nodes = Vec::new();
    collect(frame.logical_plan(), &mut nodes);
    (nodes, frame.schema().field_names())
}

#[tokio::test]
async fn every_place_and_spelling_puts_the_watermark_there() -> Result<()> {
    let (session, _pumps) = session(SqlSemantics::DataFusion).await?;
    let ten = "column=pumps.ts, delay=10000 ms";
    for (from, nodes) in [
        ("pumps WATERMARK ts DELAY OF INTERVAL 10 SECONDS", vec![ten]),
        (
            "STREAM pumps watermark ts delay of interval '10 seconds'",
            vec![ten],
        ),
        (
            "STREAM(pumps) WATERMARK ts DELAY OF INTERVAL '10' SECOND",
            vec![ten],
        ),
        (
            "pumps WATERMARK pumps.ts DELAY OF INTERVAL 10 SECONDS p",
            vec![ten],
        ),
        (
            "public.pumps WATERMARK ts DELAY OF INTERVAL 10 SECONDS AS p",
            vec!["column=public.pumps.ts, delay=10000 ms"],
        ),
        (
            "pumps WATERMARK ts DELAY OF INTERVAL 1 HOUR 30 MINUTES",
            vec!["column=pumps.ts, delay=5400000 ms"],
        ),
        (
            "(SELECT ts, pump FROM pumps) WATERMARK ts DELAY OF INTERVAL 10 SECONDS AS p",
            vec![ten],
        ),
        (
            "(SELECT ts AS t FROM pumps WHERE psi > 1) WATERMARK t DELAY OF INTERVAL 0 SECONDS",
            vec!["column=t, delay=0 ms"],
        ),
        (
            "pumps WATERMARK ts + INTERVAL '1' HOUR AS later DELAY OF INTERVAL 5 SECONDS",
            vec!["column=later, delay=5000 ms"],
        ),
        (
            "pumps a, (pumps b JOIN places ON b.pump = places.pump) WATERMARK b.ts DELAY OF INTERVAL 1 DAY",
            vec!["column=b.ts, delay=86400000 ms"],
        ),
        (
            "places x JOIN STREAM pumps WATERMARK ts DELAY OF INTERVAL 10 SECONDS AS b ON x.pump = b.pump",
            vec![ten],
        ),
        (
            "pumps WATERMARK ts DELAY OF INTERVAL 10 SECONDS a, STREAM pumps WATERMARK ts DELAY OF INTERVAL 10 SECONDS b",
            vec![ten, ten],
        ),
        (
            "pumps WATERMARK watermark DELAY OF INTERVAL 1 SECOND",
            vec!["column=pumps.watermark, delay=1000 ms"],
        ),
        (
            "STREAM watermark WATERMARK delay DELAY OF INTERVAL 1 SECOND",
            vec!["column=watermark.delay, delay=1000 ms"],
        ),
        (
            "stream WATERMARK ts DELAY OF INTERVAL 1 SECOND",
            vec!["column=stream.ts, delay=1000 ms"],
        ),
        ("pumps watermark, places delay", vec![]),
        ("stream", vec![]),
        ("STREAM stream", vec![]),
        ("STREAM pumps AS p", vec![]),
        (
            "places WATERMARK built DELAY OF INTERVAL 10 SECONDS, pumps",
            vec![],
        ),
    ] {
        let frame = session.sql(&format!("SELECT 1 AS one FROM {from}")).await;
        let frame = frame.map_err(|e| e.context(from.to_owned()))?;
        assert!(frame.is_streaming(), "{from}");
        assert_eq!(told(&frame).0, nodes, "{from}");
    }
    Ok(())
}

#[tokio::test]
async fn names_are_those_of_the_table_or_its_alias() -> Result<()> {
    let (session, _pumps) = session(SqlSemantics::DataFusion).await?;
    let clause = "WATERMARK ts DELAY OF INTERVAL 10 SECONDS";
    for (sql, columns) in [
        (format!("SELECT pumps.ts, psi FROM STREAM pumps {clause}"), "pumps.ts pumps.psi"),
        (format!("SELECT p.ts FROM STREAM pumps {clause} p"), "p.ts"),
        (format!("SELECT p.ts FROM pumps {clause} AS p WHERE p.psi > 1"), "p.ts"),
        (
            "SELECT p.* FROM (SELECT pump FROM pumps) WATERMARK now()::TIMESTAMP AS seen DELAY OF INTERVAL 1 SECOND p".into(),
            "p.pump p.seen",
        ),
        ("SELECT stream.ts FROM stream".into(), "stream.ts"),
        ("SELECT STREAM.ts FROM STREAM stream".into(), "stream.ts"),
        (
            format!("WITH w AS (SELECT * FROM STREAM pumps {clause}) SELECT w.ts FROM STREAM w"),
            "w.ts",
        ),
        (format!("SELECT ts FROM pumps {clause} UNION ALL SELECT ts FROM pumps"), "ts"),
    ] {
        let frame = session.sql(&sql).await.map_err(|e| e.context(sql.clone()))?;
        let names = told(&frame).1;
        assert_eq!(names, columns.split(' ').collect::<Vec<_>>(), "{sql}");
    }
    Ok(())
}

#[tokio::test]
async fn windows_over_a_watermark_keep_their_name() -> Result<()> {
    for semantics in [SqlSemantics::DataFusion, SqlSemantics::Spark] {
        let (session, _pumps) = session(semantics).await?;
        let sql = "SELECT window.start, window, count(*) AS n FROM STREAM pumps \
                   WATERMARK ts DELAY OF INTERVAL 5 SECONDS GROUP BY window(ts, '10 seconds')";
        let frame = session.sql(sql).await?;
        assert_eq!(told(&frame).1, ["start", "window", "n"]);
        let view = format!("CREATE VIEW counted AS {sql}");
        session.sql(&view).await?;
        let seen = session.sql("SELECT start FROM STREAM counted").await?;
        assert_eq!(told(&seen).0, ["column=pumps.ts, delay=5000 ms"]);
    }
    Ok(())
}

#[tokio::test]
async fn sparks_names_ignore_case_here_too() -> Result<()> {
    let (session, _pumps) = session(SqlSemantics::Spark).await?;
    for sql in [
        "SELECT pump FROM STREAM mixed WATERMARK ts DELAY OF INTERVAL 5 SECONDS WHERE TS IS NOT NULL",
        "SELECT m.pump FROM mixed WATERMARK TS DELAY OF INTERVAL 5 SECONDS AS m",
        "SELECT mixed.pump FROM mixed WATERMARK mixed.ts DELAY OF INTERVAL 5 SECONDS",
    ] {
        let frame = session.sql(sql).await.map_err(|e| e.context(sql))?;
        let (nodes, _) = told(&frame);
        assert_eq!(nodes, ["column=mixed.Ts, delay=5000 ms"], "{sql}");
    }
    Ok(())
}

#[tokio::test]
async fn mistakes_are_told_with_their_place() -> Result<()> {
    let (session, _pumps) = session(SqlSemantics::DataFusion).await?;
    for (from, condition, column) in [
        (
            "pumps WATERMARK ts + INTERVAL '1' HOUR DELAY OF INTERVAL 5 SECONDS",
            Some("REQUIRES_EXPLICIT_NAME_IN_WATERMARK_CLAUSE"),
            31,
        ),
        (
            "pumps WATERMARK ts AS (a, b) DELAY OF INTERVAL 5 SECONDS",
            Some("CANNOT_USE_MULTI_ALIASES_IN_WATERMARK_CLAUSE"),
            31,
        ),
        (
            "pumps WATERMARK psi DELAY OF INTERVAL 5 SECONDS",
            Some("EVENT_TIME_IS_NOT_ON_TIMESTAMP_TYPE"),
            31,
        ),
        ("pumps WATERMARK ts DELAY OF INTERVAL -5 SECONDS", None, 31),
        (
            "pumps WATERMARK ts DELAY OF 5 SECONDS",
            Some("CANNOT_PARSE_INTERVAL"),
            43,
        ),
        (
            "pumps WATERMARK ts DELAY OF INTERVAL 'soon'",
            Some("CANNOT_PARSE_INTERVAL"),
            43,
        ),
        ("pumps WATERMARK ts + DELAY OF INTERVAL 5 SECONDS", None, 36),
        (
            "pumps AS p WATERMARK ts DELAY OF INTERVAL 5 SECONDS",
            None,
            26,
        ),
        ("STREAM pumps IDENTIFIED BY p", None, 15),
        (
            "pumps WATERMARK ts DELAY OF INTERVAL 5 SECONDS WHERE )",
            None,
            68,
        ),
    ] {
        let text = format!("SELECT 1 FROM {from}");
        let error = session.sql(&text).await.expect_err(from);
        assert_eq!(error.condition(), condition, "{from}: {error:?}");
        assert_eq!(
            error.position(),
            Some(Position { line: 1, column }),
            "{from}: {error:?}"
        );
    }
    let error = session
        .sql("SELECT 1 FROM STREAM places")
        .await
        .expect_err("a table");
    assert_eq!(error.operator(), Some("STREAM"));
    Ok(())
}
