//! The grammar of key conditions: what a query asks for.
//!
//! ```text
//!   key condition   term { AND term }, at most one for each key attribute; terms may be in parentheses
//!   term            key = :value, and < <= > >=, either way round
//!                   key BETWEEN :value AND :value
//!                   begins_with(key, :value)
//! ```
//!
//! The partition key needs an equality. What remains is a range of storage keys, so there is no tree.

use super::lexer::{Symbol, Token};
use super::{Bindings, Fault, ParseError, ParseProblem, Parser, parse_whole};
use crate::expression::condition::Comparator;
use crate::expression::rule::{Use, check_between};
use crate::item::Value;
use crate::item::view::ValueView;
use crate::key::{HashKey, KeyAttribute, KeyError, KeyRange, KeySchema, SortCondition};

/// Which items of a table a query is about: those of one partition key, or some of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyCondition {
    /// The partition key's value.
    pub partition: Value,
    /// What the sort key must meet.
    pub sort: Option<SortCondition>,
}

/// A condition on one attribute, and where it begins.
struct Term {
    position: usize,
    name: String,
    condition: SortCondition,
}

impl KeyCondition {
    /// Reads a key condition for a table.
    ///
    /// # Errors
    /// [`ParseError`] with the place.
    pub fn parse(text: &str, bindings: &mut Bindings, schema: &KeySchema) -> Result<Self, ParseError> {
        parse_whole(text, bindings, |parser| {
            let mut terms = Vec::new();
            parser.key_terms(&mut terms)?;
            assign(terms, schema)
        })
    }

    /// The range of storage keys that meet this condition.
    ///
    /// # Errors
    /// When a value is none for the table's key.
    pub fn range(&self, schema: &KeySchema, hash_key: &HashKey) -> Result<KeyRange, KeyError> {
        schema.query_range(hash_key, &self.partition, self.sort.as_ref())
    }
}

/// Gives each key attribute its condition.
fn assign(terms: Vec<Term>, schema: &KeySchema) -> Result<KeyCondition, Fault> {
    let mut partition = None;
    let mut sort = None;
    for Term { position, name, condition } in terms {
        let twice = (position, ParseProblem::KeyConditionTwice { name: name.clone() });
        if name == schema.partition.name {
            let SortCondition::Equal(value) = condition else {
                return Err((position, ParseProblem::PartitionKeyOpen { name }));
            };
            check_type(&schema.partition, &value, position)?;
            if partition.replace(value).is_some() {
                return Err(twice);
            }
        } else if let Some(attribute) = schema.sort.as_ref().filter(|attribute| attribute.name == name) {
            check_sort(attribute, &condition, position)?;
            if sort.replace(condition).is_some() {
                return Err(twice);
            }
        } else {
            return Err((position, KeyError::Unexpected { name }.into()));
        }
    }
    match partition {
        Some(partition) => Ok(KeyCondition { partition, sort }),
        None => Err((0, ParseProblem::PartitionKeyOpen { name: schema.partition.name.clone() })),
    }
}

fn check_sort(attribute: &KeyAttribute, condition: &SortCondition, position: usize) -> Result<(), Fault> {
    match condition {
        SortCondition::Equal(value)
        | SortCondition::Less(value)
        | SortCondition::LessOrEqual(value)
        | SortCondition::Greater(value)
        | SortCondition::GreaterOrEqual(value)
        | SortCondition::BeginsWith(value) => check_type(attribute, value, position),
        SortCondition::Between(low, high) => {
            check_type(attribute, low, position)?;
            check_type(attribute, high, position)
        }
    }
}

fn check_type(attribute: &KeyAttribute, value: &Value, position: usize) -> Result<(), Fault> {
    let found = ValueView::from(value).value_type();
    if found == attribute.key_type.into() {
        return Ok(());
    }
    let error = KeyError::WrongType { name: attribute.name.clone(), expected: attribute.key_type, found };
    Err((position, error.into()))
}

impl Parser<'_> {
    fn key_terms(&mut self, terms: &mut Vec<Term>) -> Result<(), Fault> {
        loop {
            if self.take_symbol(Symbol::Open) {
                self.nested(|parser| parser.key_terms(terms))?;
                self.expect_symbol(Symbol::Close)?;
            } else {
                terms.push(self.key_term()?);
            }
            if !self.take_keyword("AND") {
                return Ok(());
            }
        }
    }

    fn key_term(&mut self) -> Result<Term, Fault> {
        let position = self.position();
        self.count_nodes(1, position)?;
        match self.peek_function() {
            Some("begins_with") => return self.key_prefix(position),
            Some(name) => return Err(self.unknown_function(name, "begins_with")),
            None => {}
        }
        if let Token::Value(_) = self.peek() {
            let value = self.key_value()?;
            let condition = self.key_comparator()?;
            let name = self.key_name()?;
            return Ok(Term { position, name, condition: mirrored(condition(value)) });
        }
        let name = self.key_name()?;
        if self.take_keyword("BETWEEN") {
            let start = self.position();
            let low = self.key_value()?;
            if !self.take_keyword("AND") {
                return Err(self.unexpected("AND, and the upper bound"));
            }
            let high = self.key_value()?;
            check_between(low.view(), high.view()).map_err(|error| (start, error.into()))?;
            return Ok(Term { position, name, condition: SortCondition::Between(low, high) });
        }
        let condition = self.key_comparator()?;
        Ok(Term { position, name, condition: condition(self.key_value()?) })
    }

    fn key_prefix(&mut self, position: usize) -> Result<Term, Fault> {
        self.open_function()?;
        let name = self.key_name()?;
        self.expect_symbol(Symbol::Comma)?;
        let prefix = self.value(Use::Prefix, "a :value")?;
        self.expect_symbol(Symbol::Close)?;
        Ok(Term { position, name, condition: SortCondition::BeginsWith(prefix) })
    }

    /// The name of a key attribute: no path, since keys are not nested.
    fn key_name(&mut self) -> Result<String, Fault> {
        self.name("a key attribute")
    }

    fn key_value(&mut self) -> Result<Value, Fault> {
        self.value(Use::Any, "a :value")
    }

    fn key_comparator(&mut self) -> Result<fn(Value) -> SortCondition, Fault> {
        const EXPECTED: &str = "=, <, <=, > or >=, or after a key BETWEEN";
        let not_equal = self.unexpected(EXPECTED);
        match self.comparator(EXPECTED)? {
            Comparator::Equal => Ok(SortCondition::Equal),
            Comparator::NotEqual => Err(not_equal),
            Comparator::Less => Ok(SortCondition::Less),
            Comparator::LessOrEqual => Ok(SortCondition::LessOrEqual),
            Comparator::Greater => Ok(SortCondition::Greater),
            Comparator::GreaterOrEqual => Ok(SortCondition::GreaterOrEqual),
        }
    }
}

/// The condition on the key when the value stands on the left.
fn mirrored(condition: SortCondition) -> SortCondition {
    match condition {
        SortCondition::Less(value) => SortCondition::Greater(value),
        SortCondition::LessOrEqual(value) => SortCondition::GreaterOrEqual(value),
        SortCondition::Greater(value) => SortCondition::Less(value),
        SortCondition::GreaterOrEqual(value) => SortCondition::LessOrEqual(value),
        SortCondition::Equal(_) | SortCondition::Between(..) | SortCondition::BeginsWith(_) => condition,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::ExpressionError;
    use crate::item::ValueType;
    use crate::key::KeyType;

    fn schema() -> KeySchema {
        KeySchema::partition_only("pk", KeyType::S).with_sort("sk", KeyType::N)
    }

    fn parse(text: &str) -> Result<KeyCondition, ParseError> {
        let mut bindings = Bindings::new()
            .with_name("#k", "pk")
            .with_value(":p", "p")
            .with_value(":a", 1)
            .with_value(":b", 2);
        KeyCondition::parse(text, &mut bindings, &schema())
    }

    fn check(text: &str, sort: Option<SortCondition>) {
        let condition = parse(text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(condition, KeyCondition { partition: "p".into(), sort }, "{text}");
        assert!(condition.range(&schema(), &HashKey([0; 16])).is_ok());
    }

    fn check_problem(text: &str, position: usize, problem: impl Into<ParseProblem>) {
        let error = parse(text).expect_err(text);
        assert_eq!((error.position(), error.problem()), (position, &problem.into()), "{error}");
    }

    #[test]
    fn every_condition_on_the_sort_key_is_read() {
        let one = || Value::from(1);
        check("pk = :p", None);
        check(":p = #k", None);
        check("sk = :a AND pk = :p", Some(SortCondition::Equal(one())));
        check("pk = :p and sk < :a", Some(SortCondition::Less(one())));
        check("(pk = :p) AND (sk <= :a)", Some(SortCondition::LessOrEqual(one())));
        check("((pk = :p AND sk > :a))", Some(SortCondition::Greater(one())));
        check("pk = :p AND :a <= sk", Some(SortCondition::GreaterOrEqual(one())));
        check("pk = :p AND sk BETWEEN :a AND :b", Some(SortCondition::Between(one(), 2.into())));
        let texts = KeySchema::partition_only("pk", KeyType::S).with_sort("sk", KeyType::S);
        let mut bindings = Bindings::new().with_value(":p", "p");
        let condition = KeyCondition::parse("pk = :p AND begins_with(sk, :p)", &mut bindings, &texts);
        assert_eq!(condition.expect("a key condition").sort, Some(SortCondition::BeginsWith("p".into())));
    }

    #[test]
    fn mistakes_are_told_where_they_are() {
        let name = |name: &str| name.to_owned();
        let unexpected =
            |found: &str, expected| ParseProblem::Unexpected { found: found.to_owned(), expected };
        check_problem("sk = :a", 0, ParseProblem::PartitionKeyOpen { name: name("pk") });
        check_problem("pk > :p", 0, ParseProblem::PartitionKeyOpen { name: name("pk") });
        check_problem("pk = :p AND x = :a", 12, KeyError::Unexpected { name: name("x") });
        check_problem("pk = :p AND pk = :p", 12, ParseProblem::KeyConditionTwice { name: name("pk") });
        check_problem(
            "pk = :p AND sk > :a AND sk < :b",
            24,
            ParseProblem::KeyConditionTwice { name: name("sk") },
        );
        let wrong = KeyError::WrongType { name: name("sk"), expected: KeyType::N, found: ValueType::S };
        check_problem("pk = :p AND sk = :p", 12, wrong);
        check_problem("pk = :p AND sk BETWEEN :b AND :a", 23, ExpressionError::BetweenReversed);
        check_problem("pk = :p OR sk = :a", 8, unexpected("\"OR\"", "the end, or an operator"));
        check_problem("pk <> :p", 3, unexpected("\"<>\"", "=, <, <=, > or >=, or after a key BETWEEN"));
        check_problem("pk.x = :p", 2, unexpected("\".\"", "=, <, <=, > or >=, or after a key BETWEEN"));
        check_problem("pk = sk", 5, unexpected("\"sk\"", "a :value"));
        check_problem(
            "pk = :p AND contains(sk, :a)",
            12,
            ParseProblem::UnknownFunction { name: name("contains"), allowed: "begins_with" },
        );
    }
}
