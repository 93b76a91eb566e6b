//! Spark reads `2.5` as a decimal and `2.5E0` as a double; DataFusion reads both alike.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, ExactNumberInfo, Expr, Value, VisitMut, VisitorMut,
};

/// Makes numbers with an exponent doubles.
pub(super) fn doubles(statement: &mut Statement) {
    match statement {
        Statement::Statement(statement) => {
            let _walked = statement.visit(&mut Exponents);
        }
        Statement::Explain(explain) => doubles(&mut explain.statement),
        _ => {}
    }
}

struct Exponents;

impl VisitorMut for Exponents {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Value(value) = &*expr
            && let Value::Number(text, _) = &value.value
            && text.contains(['e', 'E'])
        {
            *expr = Expr::Cast {
                kind: CastKind::Cast,
                expr: Box::new(Expr::value(Value::SingleQuotedString(text.clone()))),
                data_type: DataType::Double(ExactNumberInfo::None),
                array: false,
                format: None,
            };
        }
        ControlFlow::Continue(())
    }
}
