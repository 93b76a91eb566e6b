//! Where doubles and decimals meet, both are doubles (Spark); DataFusion would make both decimals.

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{Expr, ExprSchemable, cast};
use datafusion::scalar::ScalarValue;

/// The functions whose arguments have one common type.
const ONE_TYPE: [&str; 6] = ["coalesce", "greatest", "ifnull", "least", "nullif", "nvl"];

/// Casts the decimals of an expression whose operands have one common type, where one of them is a double.
pub(super) fn meet(mut expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let changed = match &mut expr {
        Expr::BinaryExpr(binary) if super::analyzer::compares(binary.op) => {
            unify(vec![&mut binary.left, &mut binary.right], schema)
        }
        Expr::Between(between) => unify(
            vec![&mut between.expr, &mut between.low, &mut between.high],
            schema,
        ),
        Expr::InList(InList { expr, list, .. }) => {
            let mut operands = vec![expr.as_mut()];
            operands.extend(list.iter_mut());
            unify(operands, schema)
        }
        Expr::Case(case) => {
            let mut results: Vec<&mut Expr> = Vec::new();
            let mut compared: Vec<&mut Expr> = Vec::new();
            let has_operand = case.expr.is_some();
            compared.extend(case.expr.iter_mut().map(AsMut::as_mut));
            for (when, then) in &mut case.when_then_expr {
                if has_operand {
                    compared.push(when);
                }
                results.push(then);
            }
            results.extend(case.else_expr.iter_mut().map(AsMut::as_mut));
            unify(results, schema) | unify(compared, schema)
        }
        Expr::ScalarFunction(call) if ONE_TYPE.contains(&call.func.name()) => {
            unify(call.args.iter_mut().collect(), schema)
        }
        _ => false,
    };
    Transformed::new_transformed(expr, changed)
}

fn unify(operands: Vec<&mut Expr>, schema: &DFSchema) -> bool {
    let types: Vec<_> = operands.iter().map(|e| e.get_type(schema).ok()).collect();
    let floats = types.iter().flatten().any(DataType::is_floating);
    if !floats {
        return false;
    }
    let mut changed = false;
    for (operand, data_type) in operands.into_iter().zip(types) {
        if data_type.is_some_and(|t| t.is_decimal()) {
            *operand = double(std::mem::take(operand));
            changed = true;
        }
    }
    changed
}

/// `expr`, a decimal, as a double; a literal at once.
pub(super) fn double(expr: Expr) -> Expr {
    if let Expr::Literal(value, metadata) = &expr
        && let Ok(value @ ScalarValue::Float64(_)) = value.cast_to(&DataType::Float64)
    {
        return Expr::Literal(value, metadata.clone());
    }
    cast(expr, DataType::Float64)
}
