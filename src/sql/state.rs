//! `state('checkpoint', operator => 0, batch => 7)` and its like: tables that are made before the statement is planned.
//!
//! What columns such a table has is in the checkpoint, and planning cannot wait for I/O. So each call is looked up
//! first, and stands in the statement as a function without arguments that gives the table that was found.
//! A table function of the user's own with such a name comes first.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::SessionState;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, ObjectNamePart, Spanned, TableAlias,
    TableFactor, TableFunctionArgs as Arguments, UnaryOperator, Value, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::words::{at_location, is};
use crate::state_reader::{StateOperator, StateRequest};
use crate::{Error, Result};

/// `from => 3`: the name of the argument is a word of SQL, which the parser takes for a name only in quotes.
pub(super) fn quote_from(tokens: &mut [TokenWithSpan]) {
    for at in 0..tokens.len() {
        let mut after = tokens[at + 1..].iter();
        let next = after.find(|token| !matches!(token.token, Token::Whitespace(_)));
        let names = next.is_some_and(|token| matches!(token.token, Token::RArrow));
        if names && is(&tokens[at], "FROM") {
            tokens[at].token = Token::make_word("from", Some('"'));
        }
    }
}

/// Looks up what the statement's calls read, and makes it known to `state`.
///
/// # Errors
/// `Invalid`, with the call's position, for wrong arguments and for what is not in the checkpoint.
pub(super) async fn resolve(state: &mut SessionState, statement: &mut Statement) -> Result<()> {
    let mut calls = Calls {
        known: FUNCTIONS.map(|name| !state.table_functions().contains_key(name)),
        found: Vec::new(),
    };
    let walked = match statement {
        Statement::Statement(statement) => statement.visit(&mut calls),
        Statement::Explain(explain) => match explain.statement.as_mut() {
            Statement::Statement(inner) => inner.visit(&mut calls),
            _ => return Ok(()),
        },
        _ => return Ok(()),
    };
    if let ControlFlow::Break(error) = walked {
        return Err(error);
    }
    for (number, call) in calls.found.iter().enumerate() {
        let table = call.open(state).await;
        let table = table.map_err(|e| at_location(e, call.place).with_operator(call.function))?;
        state.register_udtf(&stand_in(call.function, number), Arc::new(Found(table)));
    }
    Ok(())
}

const FUNCTIONS: [&str; 3] = ["state", "state_metadata", "state_changes"];

/// The function that stands for a call; nobody types it by chance.
fn stand_in(function: &str, number: usize) -> String {
    format!("highwater.{function}.{number}")
}

/// The calls of a statement, each replaced as it is found.
struct Calls {
    /// Which of the functions are ours.
    known: [bool; 3],
    found: Vec<Call>,
}

/// A call as it was written.
struct Call {
    function: &'static str,
    request: StateRequest,
    place: Location,
}

impl Call {
    async fn open(&self, state: &SessionState) -> Result<Arc<dyn TableProvider>> {
        match self.function {
            "state_metadata" => self.request.metadata(state).await,
            "state_changes" => self.request.changes(state).await,
            _ => self.request.state(state).await,
        }
    }
}

impl VisitorMut for Calls {
    type Break = Error;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        let TableFactor::Table {
            name,
            args: Some(args),
            alias,
            ..
        } = factor
        else {
            return ControlFlow::Continue(());
        };
        let Some(function) = self.function(name) else {
            return ControlFlow::Continue(());
        };
        let place = name.span().start;
        let request = match request(function, args) {
            Ok(request) => request,
            Err(error) => {
                return ControlFlow::Break(at_location(error, place).with_operator(function));
            }
        };
        let stands = Ident::new(stand_in(function, self.found.len()));
        self.found.push(Call {
            function,
            request,
            place,
        });
        *name = ObjectName(vec![ObjectNamePart::Identifier(stands)]);
        args.args.clear();
        alias.get_or_insert_with(|| TableAlias {
            explicit: true,
            name: Ident::new(function),
            columns: Vec::new(),
            at: None,
        });
        ControlFlow::Continue(())
    }
}

impl Calls {
    fn function(&self, name: &ObjectName) -> Option<&'static str> {
        let [part] = name.0.as_slice() else {
            return None;
        };
        let typed = &part.as_ident()?.value;
        let mut known = FUNCTIONS.iter().zip(self.known).filter(|(_, ours)| *ours);
        known.find_map(|(name, _)| typed.eq_ignore_ascii_case(name).then_some(*name))
    }
}

/// What a call asks for.
fn request(function: &str, args: &Arguments) -> Result<StateRequest> {
    let mut args = args.args.iter();
    let location = match args.next() {
        Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(location))) => text(location),
        _ => None,
    };
    let usage = usage(function);
    let location = location.ok_or_else(|| {
        Error::invalid(format!(
            "`{function}` needs the checkpoint's location as its first argument, in quotes"
        ))
        .with_hint(usage)
    })?;
    let mut request = StateRequest::new(location);
    for arg in args {
        let (name, value) = named(arg).ok_or_else(|| {
            Error::invalid(format!(
                "the arguments of `{function}` after the first have names: {arg}"
            ))
            .with_hint(usage)
        })?;
        let name = name.to_lowercase();
        match (function, name.as_str()) {
            ("state" | "state_changes", "operator") => {
                request.operator = operator(value).ok_or_else(|| wrong("operator", value))?;
            }
            ("state", "batch") => request.batch = Some(batch("batch", value)?),
            ("state_changes", "from") => request.from = Some(batch("from", value)?),
            ("state_changes", "to") => request.to = Some(batch("to", value)?),
            _ => {
                return Err(
                    Error::invalid(format!("`{function}` has no argument `{name}`"))
                        .with_hint(usage),
                );
            }
        }
    }
    Ok(request)
}

fn usage(function: &str) -> &'static str {
    match function {
        "state_metadata" => "state_metadata('checkpoint')",
        "state_changes" => "state_changes('checkpoint', operator => 0, from => 3, to => 7)",
        _ => "state('checkpoint', operator => 0, batch => 7)",
    }
}

fn named(arg: &FunctionArg) -> Option<(&str, &Expr)> {
    match arg {
        FunctionArg::Named {
            name,
            arg: FunctionArgExpr::Expr(value),
            ..
        }
        | FunctionArg::ExprNamed {
            name: Expr::Identifier(name),
            arg: FunctionArgExpr::Expr(value),
            ..
        } => Some((&name.value, value)),
        _ => None,
    }
}

fn text(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    }
}

fn number(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => digits.to_string().parse().ok(),
            _ => None,
        },
        Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr,
        } => number(expr).map(|number| -number),
        _ => None,
    }
}

fn operator(value: &Expr) -> Option<StateOperator> {
    let name = text(value).map(StateOperator::Name);
    name.or_else(|| number(value).map(StateOperator::Number))
}

fn batch(name: &'static str, value: &Expr) -> Result<u64> {
    let batch = number(value).and_then(|batch| u64::try_from(batch).ok());
    batch.ok_or_else(|| wrong(name, value))
}

fn wrong(name: &'static str, value: &Expr) -> Error {
    let wanted = match name {
        "operator" => "a name in quotes or a number",
        _ => "the number of a micro-batch",
    };
    Error::invalid(format!("`{name}` is {wanted}, not `{value}`")).with_option(name)
}

/// A function without arguments that gives a table.
#[derive(Debug)]
struct Found(Arc<dyn TableProvider>);

impl TableFunctionImpl for Found {
    fn call_with_args(&self, _args: TableFunctionArgs) -> DataFusionResult<Arc<dyn TableProvider>> {
        Ok(Arc::clone(&self.0))
    }
}
