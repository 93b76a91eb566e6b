//! Casts as Spark does them: texts are trimmed before they are read, doubles are written as Java does.

use arrow::datatypes::DataType;
use datafusion::functions::string::expr_fn::btrim;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::{Expr, cast};

use super::operators::is_text;
use super::text;

/// `expr`, a text, read as a number.
pub(super) fn to_number(expr: Expr, number: DataType) -> Expr {
    cast(trimmed(expr), number)
}

/// `CAST(expr AS …)` where `expr` has type `from`, with Spark's meaning.
pub(super) fn rewrite(node: Cast, from: &DataType) -> Expr {
    let to = node.field.data_type().clone();
    if is_text(from) && !is_text(&to) && !to.is_nested() && !to.is_binary() {
        return Expr::Cast(Cast {
            expr: Box::new(trimmed(*node.expr)),
            field: node.field,
        });
    }
    if is_text(&to) && text::is_written_differently(from) && !text::is_call(&node.expr) {
        return Expr::Cast(Cast {
            expr: Box::new(text::call(*node.expr)),
            field: node.field,
        });
    }
    Expr::Cast(node)
}

/// `btrim(expr)`, once.
fn trimmed(expr: Expr) -> Expr {
    let done = matches!(&expr, Expr::ScalarFunction(f) if f.func.name() == "btrim")
        || matches!(&expr, Expr::Literal(value, _) if is_trim(value));
    if done { expr } else { btrim(vec![expr]) }
}

fn is_trim(value: &datafusion::scalar::ScalarValue) -> bool {
    value
        .try_as_str()
        .flatten()
        .is_none_or(|text| text.trim() == text)
}
