//! Joins of two streams, from the outside.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::TryStreamExt;
use highwater::datafusion::arrow::array::{Int64Array, RecordBatch};
use highwater::datafusion::arrow::util::pretty::pretty_format_batches;
use highwater::prelude::*;
use highwater::{BatchOutput, ErrorKind, Guarantee, Result, Sink, SinkCommit};
use highwater_testkit::rng::Rng;
use tokio::sync::Notify;

const IMPRESSIONS: &str = "ts TIMESTAMP, ad BIGINT, shown BIGINT";
const CLICKS: &str = "at TIMESTAMP, ad BIGINT, clicked BIGINT";
const SOON: &str = "i.ad = c.ad AND c.at >= i.ts AND c.at <= i.ts + INTERVAL '10' SECOND";

/// A second of 2024-05-01.
fn time(second: i64) -> String {
    let (hours, minutes) = (second / 3_600, second / 60 % 60);
    format!("2024-05-01 {hours:02}:{minutes:02}:{:02}", second % 60)
}

type Event = (Option<i64>, Option<i64>, i64);

/// Two streams with watermarks of five minutes, as the views `i` and `c`.
struct Ads {
    session: StreamSession,
    impressions: MemoryStream,
    clicks: MemoryStream,
}

impl Ads {
    fn new() -> Result<Self> {
        let session = StreamSession::new();
        let impressions = MemoryStream::new(&session, IMPRESSIONS)?;
        let clicks = MemoryStream::new(&session, CLICKS)?;
        let left = impressions.to_frame().with_watermark("ts", "5 minutes")?;
        let right = clicks.to_frame().with_watermark("at", "5 minutes")?;
        left.create_or_replace_temp_view("i")?;
        right.create_or_replace_temp_view("c")?;
        Ok(Self {
            session,
            impressions,
            clicks,
        })
    }

    fn add(&self, impressions: &[Event], clicks: &[Event]) -> Result<()> {
        for (stream, rows) in [(&self.impressions, impressions), (&self.clicks, clicks)] {
            let rows = rows.iter().map(|(at, ad, v)| (at.map(time), *ad, *v));
            stream.add_data(rows)?;
        }
        Ok(())
    }

    async fn start(&self, sql: &str) -> Result<StreamingQuery> {
        let writer = self.session.sql(sql).await?.write_stream();
        writer.format("memory").query_name("out").start().await
    }
}

fn lines(batches: &[RecordBatch]) -> Result<Vec<String>> {
    let text = pretty_format_batches(batches)?.to_string();
    let mut lines: Vec<_> = text.lines().skip(3).map(str::to_owned).collect();
    lines.retain(|line| line.starts_with('|'));
    let words = |line: &String| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut lines: Vec<_> = lines.iter().map(words).collect();
    lines.sort();
    Ok(lines)
}

fn events(dice: &mut Rng, from: i64) -> Vec<Event> {
    let one = |dice: &mut Rng| {
        let at = from + dice.between(0, 60);
        (
            Some(at),
            (!dice.chance(5)).then(|| dice.between(0, 12)),
            dice.between(0, 100),
        )
    };
    (0..dice.below(40)).map(|_| one(dice)).collect()
}

/// What DataFusion answers over all rows at once.
async fn batch_answer(sql: &str, impressions: &[Event], clicks: &[Event]) -> Result<Vec<String>> {
    let session = StreamSession::new();
    let tables = [
        ("i(ts, ad, shown)", impressions),
        ("c(at, ad, clicked)", clicks),
    ];
    for (table, rows) in tables {
        let number = |v: Option<i64>| v.map_or("NULL".to_owned(), |v| v.to_string());
        let rows = rows.iter().map(|(at, ad, v)| {
            let at = at.map_or("NULL".to_owned(), |at| format!("'{}'", time(at)));
            format!("(CAST({at} AS TIMESTAMP), {}, {v})", number(*ad))
        });
        let rows = rows.collect::<Vec<_>>().join(", ");
        let frame = session
            .sql(&format!("SELECT * FROM (VALUES {rows}) {table}"))
            .await?;
        frame.create_or_replace_temp_view(&table[..1])?;
    }
    lines(&session.sql(sql).await?.collect().await?)
}

/// No row is late (each trigger spans a minute, and the watermark is five behind), and two last events a day later
/// let everything go: then the rows of all triggers are those of a join of the whole, whatever its kind. This is the
/// test of left anti joins, which Spark refuses.
#[tokio::test]
async fn all_triggers_together_give_the_batch_join() -> Result<()> {
    let kinds = [
        ("JOIN", "i.ad AS of_i, shown, c.ad AS of_c, clicked"),
        ("LEFT JOIN", "i.ad AS of_i, shown, c.ad AS of_c, clicked"),
        ("RIGHT JOIN", "i.ad AS of_i, shown, c.ad AS of_c, clicked"),
        ("FULL JOIN", "i.ad AS of_i, shown, c.ad AS of_c, clicked"),
        ("LEFT SEMI JOIN", "i.ad, shown"),
        ("LEFT ANTI JOIN", "i.ad, shown"),
    ];
    for (seed, (kind, columns)) in (11..).zip(kinds) {
        let sql = format!("SELECT {columns} FROM i {kind} c ON {SOON}");
        let mut dice = Rng::new(seed);
        let ads = Ads::new()?;
        let query = ads.start(&sql).await?;
        let (mut impressions, mut clicks) = (Vec::new(), Vec::new());
        for trigger in 0..15 {
            let left = events(&mut dice, 60 * trigger);
            let mut right = events(&mut dice, 60 * trigger);
            if kind == "FULL JOIN" {
                // Null keys of both sides match each other in a full join of streams (Spark), and in no batch join.
                right.retain(|(_, ad, _)| ad.is_some());
            }
            ads.add(&left, &right)?;
            query.process_all_available().await?;
            impressions.extend(left);
            clicks.extend(right);
        }
        // They match nothing, and stay.
        ads.add(
            &[(Some(80_000), Some(-1), 0)],
            &[(Some(80_000), Some(-2), 0)],
        )?;
        query.process_all_available().await?;
        query.stop().await?;
        let out = ads.session.table("out").await?.collect().await?;
        let expected = batch_answer(&sql, &impressions, &clicks).await?;
        assert_eq!(lines(&out)?, expected, "seed {seed}: {sql}");
    }
    Ok(())
}

/// The frame calls, each with the same two rows: ad 1 is clicked, ad 2 is not.
#[tokio::test]
async fn frames_join_as_sql_does() -> Result<()> {
    let on = [
        col("i.ad").eq(col("c.ad")),
        col("c.at").gt_eq(col("i.ts")),
        col("i.ts").gt_eq(col("c.at")),
    ];
    let [_, after, before] = on.clone();
    type Joined = Box<dyn Fn(StreamFrame, StreamFrame) -> Result<StreamFrame>>;
    let calls: Vec<(&str, Joined)> = vec![
        (
            "join",
            Box::new(move |i, c| {
                let filter = Some(after.clone().and(before.clone()));
                i.join(c, JoinType::Left, &["ad"], &["ad"], filter)
            }),
        ),
        (
            "join_on",
            Box::new(move |i, c| i.join_on(c, JoinType::Left, on.clone())),
        ),
        (
            "join_using",
            Box::new(|i, c| {
                let c = c.with_column_renamed("at", "ts")?;
                i.join_using(c, JoinType::Left, &["ad", "ts"])
            }),
        ),
    ];
    for (name, call) in calls {
        let ads = Ads::new()?;
        let (i, c) = (ads.session.table("i").await?, ads.session.table("c").await?);
        let joined = call(i, c)?.select_columns(&["shown", "clicked"])?;
        let writer = joined.write_stream().format("memory").query_name("out");
        let query = writer.start().await?;
        ads.add(
            &[(Some(1), Some(1), 7), (Some(1), Some(2), 8)],
            &[(Some(1), Some(1), 9)],
        )?;
        query.process_all_available().await?;
        ads.add(&[(Some(900), Some(3), 0)], &[(Some(900), Some(4), 0)])?;
        query.process_all_available().await?;
        query.stop().await?;
        let out = ads.session.table("out").await?.collect().await?;
        assert_eq!(lines(&out)?, ["| 7 | 9 |", "| 8 | |"], "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn progress_and_explain_tell_of_a_join_once() -> Result<()> {
    let ads = Ads::new()?;
    let sql = format!("SELECT shown, clicked FROM i LEFT JOIN c ON {SOON}");
    let query = ads.start(&sql).await?;
    ads.add(
        &[(Some(400), Some(1), 7), (Some(401), Some(2), 8)],
        &[(Some(405), Some(1), 9)],
    )?;
    query.process_all_available().await?;
    // The watermark is 00:01:41 now, five minutes behind the lesser of the latest times: what is not after it is late.
    ads.add(
        &[(Some(99), Some(1), 7)],
        &[(Some(101), Some(1), 9), (Some(102), Some(1), 9)],
    )?;
    query.process_all_available().await?;
    let explained = query.explain();
    let line = "join of two streams, left outer join on (ad = ad), left rows leave when watermark − 10.001 s passes \
                `ts`, right rows leave when watermark − 0.001 s passes `at`";
    assert!(explained.contains(line), "{explained}");
    assert!(
        explained.contains("StreamJoinExec: name=join, join_type=Left"),
        "{explained}"
    );
    assert_eq!(
        explained.matches("join of two streams").count(),
        1,
        "{explained}"
    );
    // What was added at once to two streams may come in two batches: the sums say the same.
    let progress = query.recent_progress();
    let joins: Vec<_> = progress.iter().flat_map(|p| &p.state_operators).collect();
    let last = joins.last().expect("a batch");
    assert_eq!(last.operator_name, "symmetricHashJoin");
    assert_eq!(last.num_rows_total, 4);
    assert!(progress.iter().all(|p| p.state_operators.len() == 1));
    assert_eq!(joins.iter().map(|j| j.num_rows_updated).sum::<u64>(), 4);
    assert_eq!(joins.iter().map(|j| j.num_late_rows).sum::<u64>(), 2);
    query.stop().await
}

#[tokio::test]
async fn what_never_completes_is_refused_with_a_way_out() -> Result<()> {
    let session = StreamSession::new();
    let impressions = MemoryStream::new(&session, IMPRESSIONS)?;
    impressions.to_frame().create_or_replace_temp_view("i")?;
    let clicks = MemoryStream::new(&session, CLICKS)?;
    let clicks = clicks.to_frame().with_watermark("at", "5 minutes")?;
    clicks.create_or_replace_temp_view("c")?;
    let sql = format!("SELECT shown, clicked FROM i LEFT JOIN c ON {SOON}");
    let frame = session.sql(&sql).await?;
    let writer = frame.write_stream().format("memory").query_name("out");
    let error = writer.start().await.expect_err("it never completes");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(error.condition(), Some("UNSUPPORTED_STREAMING_OPERATION"));
    assert_eq!(error.operator(), Some("join"));
    assert!(
        error
            .message()
            .contains("left side has no watermark of its own"),
        "{error}"
    );
    assert!(
        error.hint().is_some_and(|hint| hint.contains("watermark")),
        "{error}"
    );
    Ok(())
}

/// Reads its input batch by batch, and tells when it begins and of each.
#[derive(Debug)]
struct Watching {
    rows: Mutex<Vec<usize>>,
    read: Notify,
}

#[async_trait]
impl Sink for Watching {
    fn description(&self) -> String {
        "Watching".into()
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    fn needs_checkpoint(&self) -> bool {
        false
    }

    async fn write(&self, mut output: BatchOutput) -> Result<SinkCommit> {
        self.read.notify_one();
        while let Some(batch) = output.stream.try_next().await? {
            self.rows
                .lock()
                .expect("not poisoned")
                .push(batch.num_rows());
            self.read.notify_one();
        }
        Ok(SinkCommit::default())
    }
}

/// Two streams with all their rows of one key.
async fn one_key(sql: &str, sink: Arc<dyn Sink>) -> Result<StreamingQuery> {
    const ROWS: i64 = 100_000;
    let session = StreamSession::new();
    for name in ["a", "b"] {
        let stream = MemoryStream::new(&session, "k BIGINT, v BIGINT")?;
        let columns = [
            Arc::new(Int64Array::from_iter_values((0..ROWS).map(|_| 7))) as _,
            Arc::new(Int64Array::from_iter_values(0..ROWS)) as _,
        ];
        stream.add_batch(RecordBatch::try_new(
            Arc::clone(stream.schema()),
            columns.into(),
        )?)?;
        stream.to_frame().create_or_replace_temp_view(name)?;
    }
    let frame = session.sql(sql).await?;
    frame.write_stream().sink(sink).start().await
}

/// 10^10 pairs: nobody can wait for them or hold them. They come in batches of bounded size, and between two of them an
/// abort is heard: else this test would not end.
#[tokio::test(flavor = "multi_thread")]
async fn a_join_of_very_many_rows_of_one_key_can_be_aborted() -> Result<()> {
    let sink = Arc::new(Watching {
        rows: Mutex::default(),
        read: Notify::new(),
    });
    let query = one_key(
        "SELECT a.v, b.v FROM a JOIN b ON a.k = b.k",
        Arc::clone(&sink) as _,
    );
    let query = query.await?;
    while sink.rows.lock().expect("not poisoned").is_empty() {
        sink.read.notified().await;
    }
    query.abort().await?;
    let read = std::mem::take(&mut *sink.rows.lock().expect("not poisoned"));
    assert!(!read.is_empty());
    // A batch of DataFusion, and a step's candidates on top.
    assert!(read.iter().all(|rows| *rows <= 2 * 8_192), "{read:?}");
    assert!(!query.is_active());
    // Nothing reads on after it.
    assert!(sink.rows.lock().expect("not poisoned").is_empty());
    Ok(())
}

/// The same where no pair passes the condition, so that nothing comes out between which it could be heard.
#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_finds_nothing_can_be_aborted() -> Result<()> {
    let sink = Arc::new(Watching {
        rows: Mutex::default(),
        read: Notify::new(),
    });
    let sql = "SELECT a.v, b.v FROM a JOIN b ON a.k = b.k AND a.v > b.v + 1000000";
    let query = one_key(sql, Arc::clone(&sink) as _).await?;
    sink.read.notified().await;
    query.abort().await?;
    assert!(!query.is_active());
    assert!(sink.rows.lock().expect("not poisoned").is_empty());
    Ok(())
}

/// What nothing bounds may be bound by age; `explain` says so, and where it would change rows of a result it is refused.
#[tokio::test]
async fn state_ttl_is_for_inner_joins_without_a_bound() -> Result<()> {
    let ads = Ads::new()?;
    let start = async |sql: &str, ttl: &str| {
        let frame = ads.session.sql(sql).await?;
        let writer = frame.write_stream().output_mode(OutputMode::Update);
        writer.format("noop").option("stateTtl", ttl).start().await
    };
    let query = start(
        "SELECT shown, clicked FROM i JOIN c ON i.ad = c.ad",
        "90 minutes",
    )
    .await?;
    let explained = query.explain();
    let line = "inner join on (ad = ad), left rows leave 5400 s after they came (stateTtl), \
                right rows leave 5400 s after they came (stateTtl)";
    assert!(explained.contains(line), "{explained}");
    ads.add(&[(Some(1), Some(1), 7)], &[(Some(900), Some(1), 9)])?;
    query.process_all_available().await?;
    let progress = query.last_progress().expect("a batch");
    assert_eq!(progress.state_operators[0].num_rows_total, 2);
    query.stop().await?;

    let joined = format!("SELECT shown, clicked FROM i JOIN c ON {SOON}");
    for (sql, ttl, operator) in [
        (joined.as_str(), "1 hour", None),
        ("SELECT shown FROM i", "1 hour", None),
        (
            "SELECT shown, clicked FROM i JOIN c ON i.ad = c.ad",
            "0 seconds",
            None,
        ),
        (
            "SELECT ad, count(*) FROM i GROUP BY ad",
            "1 hour",
            Some("aggregate"),
        ),
        (
            "SELECT i.ad, count(*) FROM i JOIN c ON i.ad = c.ad GROUP BY i.ad",
            "1 hour",
            Some("aggregate"),
        ),
    ] {
        let error = start(sql, ttl).await.expect_err(sql);
        assert_eq!(error.option(), Some("stateTtl"), "{sql}: {error}");
        assert_eq!(error.operator(), operator, "{sql}: {error}");
        assert!(error.hint().is_some(), "{sql}");
    }
    Ok(())
}
