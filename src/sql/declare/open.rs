//! A declaration becomes a table of the session: what can be wrong with it is told now, at the word that is wrong.

use std::path::Path;
use std::sync::Arc;

use datafusion::common::TableReference;
use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use highwater_connectors::file::FileTable;

use super::super::cursor::{at_option, folded, map};
use super::super::words::at_location;
use super::parse::Declaration;
use super::table::{Declared, DeclaredTable, Reads, is_of_files};
use crate::{Error, OutputMode, Result, SinkSpec, StreamSession};

/// Whose table it is.
pub(in crate::sql) enum Decision {
    /// DataFusion's, by these words.
    DataFusion(Vec<TokenWithSpan>),
    /// Ours.
    Ours,
}

/// Options of DataFusion's CSV that have a name of Spark's too; the first is DataFusion's.
const SAME: [(&str, &str); 4] = [
    ("format.has_header", "header"),
    ("format.delimiter", "sep"),
    ("format.delimiter", "delimiter"),
    ("format.has_header", "hasheader"),
];

/// Options without a dot that DataFusion's formats have, folded.
const OF_DATAFUSION: [&str; 18] = [
    "quote",
    "escape",
    "comment",
    "compression",
    "terminator",
    "doublequote",
    "newlinesinvalues",
    "schemainfermaxrec",
    "dateformat",
    "datetimeformat",
    "timestampformat",
    "timestamptzformat",
    "timeformat",
    "nullregex",
    "truncatedrows",
    "compressionlevel",
    "metadatasizehint",
    "pushdownfilters",
];

/// A bounded table of a format of DataFusion's, with nothing of ours in it, is DataFusion's table.
pub(in crate::sql) fn decide(
    table: &Declaration,
    tokens: &[TokenWithSpan],
    session: &StreamSession,
    state: &SessionState,
) -> Decision {
    let factories = state.table_factories();
    let known_there = factories.contains_key(&table.format.to_uppercase());
    let ours = session.registry().source(&table.format).is_ok()
        || session.registry().sink(&table.format).is_ok();
    let common = |key: &str| {
        let key = folded(key);
        key.contains('.')
            || OF_DATAFUSION.contains(&key.as_str())
            || SAME.iter().any(|(_, same)| *same == key)
    };
    let plain = table.columns.watermark.is_none()
        && table
            .location
            .as_ref()
            .is_none_or(|(l, _)| !l.is_empty() && !is_of_a_sink(l))
        && table.options.iter().all(|o| common(&o.key));
    if known_there && !table.flink && (!ours || (!table.unbounded && plain)) {
        return Decision::DataFusion(for_datafusion(table, tokens));
    }
    Decision::Ours
}

/// The words with options spelled as DataFusion spells them.
fn for_datafusion(table: &Declaration, tokens: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    let mut words = Vec::with_capacity(tokens.len());
    let mut after_key = false;
    for token in tokens {
        let at = token.span.start;
        let option = table.options.iter().find(|o| o.place == at);
        if after_key && token.token == Token::Eq {
            continue;
        }
        after_key = option.is_some();
        let mut word = token.clone();
        if let Some(option) = option {
            let key = folded(&option.key);
            if let Some((theirs, _)) = SAME.iter().find(|(_, same)| *same == key) {
                word.token = Token::SingleQuotedString((*theirs).to_owned());
            }
        }
        if let Some((location, place)) = &table.location
            && *place == at
            && is_new_folder(table, location)
        {
            word.token = Token::SingleQuotedString(format!("{location}/"));
        }
        words.push(word);
    }
    words
}

/// A directory of this machine that a query has written: only the files that its log names count.
fn is_of_a_sink(location: &str) -> bool {
    let path = location.strip_prefix("file://").unwrap_or(location);
    !path.contains("://") && Path::new(path).join("_spark_metadata").is_dir()
}

/// A path that is not there yet and looks like no file: the directory that a query will write.
fn is_new_folder(table: &Declaration, location: &str) -> bool {
    let path = Path::new(location);
    let plain = !location.contains("://") && !location.contains(['*', '?', '[']);
    plain
        && !table.columns.columns.is_empty()
        && !location.ends_with('/')
        && path.extension().is_none()
        && !path.exists()
}

/// Makes the table known to the session.
///
/// # Errors
/// `Invalid` for what is wrong in the declaration, at its place; what the source says.
pub(in crate::sql) async fn create(session: &StreamSession, table: &Declaration) -> Result<()> {
    refuse_what_is_datafusions(table)?;
    let context = session.context();
    let there = context.table_exist(table.name.table.clone())?;
    if there && table.if_not_exists {
        return Ok(());
    }
    if there && !table.or_replace {
        let error = Error::invalid(format!("there is a table `{}` already", table.name.table))
            .with_condition("TABLE_OR_VIEW_ALREADY_EXISTS")
            .with_hint("write `CREATE OR REPLACE`, `IF NOT EXISTS`, or choose another name");
        return Err(at_location(error, table.name.place));
    }
    let placed = |error| at_its_word(error, table);
    let declared = declared(table, session).map_err(placed)?;
    let reads = reads(session, &declared).await.map_err(placed)?;
    let made = DeclaredTable::new(declared, reads);
    if there {
        context.deregister_table(table.name.table.clone())?;
    }
    context.register_table(table.name.table.clone(), Arc::new(made))?;
    Ok(())
}

/// Clauses that only DataFusion's tables have.
fn refuse_what_is_datafusions(table: &Declaration) -> Result<()> {
    if let Some(error) = &table.columns.foreign {
        return Err(error.clone());
    }
    let (what, place) = match (&table.columns.constraint, table.of_datafusion) {
        (Some((word, place)), _) => (format!("the constraint `{word}`"), *place),
        (None, Some((clause, place))) => (format!("`{clause}`"), place),
        (None, None) => return Ok(()),
    };
    let error =
        Error::unsupported(format!("{what} of a table that streams")).with_hint("leave it out");
    Err(at_location(error, place))
}

fn declared(table: &Declaration, session: &StreamSession) -> Result<Declared> {
    let format = &table.format;
    let registry = session.registry();
    if let Err(error) = registry.source(format)
        && registry.sink(format).is_err()
    {
        return Err(error);
    }
    if format.eq_ignore_ascii_case("memory") {
        return Err(Error::unsupported("a declared table in memory")
            .with_option("format")
            .with_hint("`CREATE STREAMING TABLE name AS SELECT …` makes one, and fills it"));
    }
    let path = table.location.as_ref().map(|(path, _)| path.clone());
    let mut options = map(&[]);
    for (key, value) in map(&table.options).iter() {
        let key = match key.get(..7) {
            Some(prefix) if prefix.eq_ignore_ascii_case("format.") => &key[7..],
            _ => key,
        };
        options.set(key, value);
    }
    // A bounded table of CSV has a header unless it is said that it has none, as DataFusion's own.
    let said = ["header", "has_header"]
        .iter()
        .any(|key| options.get(key).is_some());
    if !table.unbounded && !said && format.eq_ignore_ascii_case("csv") {
        options.set(
            "header",
            session.state().config_options().catalog.has_header,
        );
    }
    let watermark = table.columns.watermark.as_ref();
    Ok(Declared {
        name: bare(&table.name.table),
        format: format.clone(),
        path: path.filter(|path| !path.is_empty()),
        columns: table.columns.schema(),
        options,
        partition_by: table.partition_by.clone(),
        watermark: watermark.map(|w| (w.column.clone(), w.delay)),
        unbounded: table.unbounded,
    })
}

fn bare(name: &TableReference) -> String {
    name.table().to_owned()
}

/// Opens what can be read of the table.
///
/// # Errors
/// What the source says; for a format that only writes what its sink says.
pub(super) async fn reads(session: &StreamSession, table: &Declared) -> Result<Reads> {
    let registry = session.registry();
    if registry.source(&table.format).is_err() {
        check_sink(session, table).await?;
        let (name, format) = (&table.name, &table.format);
        let error = Error::unsupported(format!(
            "the table `{name}` is only written: `{format}` is a sink only"
        ));
        return Ok(Reads::Nothing(error.with_operator(name)));
    }
    let may_be_written = registry.sink(&table.format).is_ok() && table.columns.is_some();
    let opened = match table.open(session, map(&[])).await {
        Ok(source) => table.stream(source, None),
        Err(error) if error.condition() == Some("PATH_NOT_FOUND") && may_be_written => {
            return match table.sink_table(session).await? {
                Some(files) if !table.unbounded => Ok(Reads::Batch(Arc::new(files))),
                _ => Ok(Reads::Missing(error)),
            };
        }
        Err(error) if table.unbounded || !is_of_files(&table.format) => return Err(error),
        // Without columns a batch infers them, and a stream must be asked to.
        Err(error) if table.columns.is_some() => return Err(error),
        Err(error) => Err(error),
    };
    if table.unbounded {
        return Ok(Reads::Stream(Box::new(opened?)));
    }
    if !is_of_files(&table.format) {
        opened?;
        let only = Error::unsupported(format!(
            "the table `{}` is a stream: `{}` has no rows that are there now",
            table.name, table.format
        ))
        .with_operator(&table.name)
        .with_hint(format!(
            "write `FROM STREAM {}`, or declare it UNBOUNDED",
            table.name
        ));
        return Ok(Reads::Nothing(only));
    }
    let files = FileTable::open(table.spec(session)).await?;
    Ok(Reads::Batch(Arc::new(files)))
}

/// The options of a table that is only written are judged by its sink.
async fn check_sink(session: &StreamSession, table: &Declared) -> Result<()> {
    if table.watermark.is_some() {
        return Err(Error::invalid(format!(
            "a table of the format `{}` is only written: it has no watermark",
            table.format
        ))
        .with_operator("watermark")
        .with_hint("declare the watermark on the table that is read"));
    }
    let provider = session.registry().sink(&table.format)?;
    let Some(columns) = &table.columns else {
        return Ok(());
    };
    let (clock, state) = (Arc::clone(session.clock()), session.state_for_files());
    let mode = OutputMode::Append;
    let mut spec = SinkSpec::new(&table.format, Arc::clone(columns), mode, clock, state);
    spec.path.clone_from(&table.path);
    spec.partition_by.clone_from(&table.partition_by);
    spec.options = table.options.clone();
    // The memory sink's table has the query's name: any that is free will do to judge the options.
    spec.query_name = Some(format!("highwater declares {}", table.name));
    provider.open(spec).await.map(drop)
}

/// The error at the word of the declaration that it is about.
fn at_its_word(error: Error, table: &Declaration) -> Error {
    let error = at_option(error, &table.options);
    if error.position().is_some() {
        return error;
    }
    let columns = table.columns.columns.iter();
    let column = columns
        .clone()
        .find(|c| error.column() == Some(c.field.name().as_str()));
    let watermark = table.columns.watermark.as_ref();
    let place = match (error.option(), column) {
        (Some("format" | "connector"), _) => table.format_place,
        (Some("path"), _) => table.location.as_ref().map_or(table.name.place, |l| l.1),
        _ if error.operator() == Some("watermark") || is_about_event_time(&error) => {
            watermark.map_or(table.name.place, |w| w.place)
        }
        (_, Some(column)) => column.place,
        _ if error.condition() == Some("PATH_NOT_FOUND") => {
            table.location.as_ref().map_or(table.name.place, |l| l.1)
        }
        _ => table.name.place,
    };
    at_location(error, place)
}

fn is_about_event_time(error: &Error) -> bool {
    error
        .condition()
        .is_some_and(|condition| condition.starts_with("EVENT_TIME"))
}
