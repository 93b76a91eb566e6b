//! A case through the SQL front: watermarks and deduplication written in SQL instead of called on frames.

use highwater::Result;
use highwater::prelude::*;

use super::case::{Case, DedupDef, WatermarkDef};
use super::run::Streams;

/// True when the case has something that the SQL front writes otherwise than the calls on frames.
#[must_use]
pub fn differs(case: &Case) -> bool {
    let sources = case.sources.iter().map(|s| (&s.watermark, &s.dedup));
    let views = case.views.iter().map(|v| (&v.watermark, &v.dedup));
    sources
        .chain(views)
        .any(|(watermark, dedup)| watermark.is_some() || dedup.is_some())
}

/// Defines sources, views and the query of a case, all in SQL.
///
/// # Errors
/// When one of them is refused.
pub(super) async fn define(
    case: &Case,
    session: &StreamSession,
    streams: &Streams,
) -> Result<(StreamFrame, OutputMode)> {
    for source in &case.sources {
        if let Some((stream, _)) = streams.get(source.name.as_str()) {
            let rows = format!("{}_rows", source.name);
            stream.to_frame().create_or_replace_temp_view(&rows)?;
            let sql = view(&rows, &source.watermark, &source.dedup);
            view_of(session, &source.name, &sql).await?;
        }
    }
    for definition in &case.views {
        let input = format!("({})", definition.sql);
        let sql = view(&input, &definition.watermark, &definition.dedup);
        view_of(session, &definition.name, &sql).await?;
    }
    let mode: OutputMode = case.output_mode.parse()?;
    let frame = session.sql(&case.query).await?;
    Ok((frame, mode))
}

async fn view_of(session: &StreamSession, name: &str, sql: &str) -> Result<()> {
    let create = format!("CREATE OR REPLACE TEMP VIEW {name} AS {sql}");
    session.sql(&create).await.map(drop)
}

/// `SELECT * FROM input WATERMARK …`, in a call of `DROP_DUPLICATES` where there is one.
fn view(input: &str, watermark: &Option<WatermarkDef>, dedup: &Option<DedupDef>) -> String {
    let mut from = input.to_owned();
    if let Some(WatermarkDef { column, delay }) = watermark {
        from = format!("{from} WATERMARK {column} DELAY OF INTERVAL '{delay}'");
    }
    if let Some(dedup) = dedup {
        let function = match dedup.within_watermark {
            true => "DROP_DUPLICATES_WITHIN_WATERMARK",
            false => "DROP_DUPLICATES",
        };
        let key = match dedup.columns.as_slice() {
            [] => String::new(),
            columns => format!(", DESCRIPTOR({})", columns.join(", ")),
        };
        from = format!("{function}(TABLE {from}{key})");
    }
    format!("SELECT * FROM {from}")
}
