//! Tests of the format parser and evaluator.

use super::parse;

#[test]
fn a_mistake_names_the_nearest_operator_and_its_place() {
    let error = parse("a %RESPONSE_COD%").unwrap_err();
    assert_eq!(error.offset, 2);
    assert_eq!(
        error.to_string(),
        "unknown operator `%RESPONSE_COD%`; did you mean `%RESPONSE_CODE%`?"
    );
}
