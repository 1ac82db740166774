//! The grammar of updates.
//!
//! ```text
//!   update   clauses in any order, each once:
//!            SET path = value, …    REMOVE path, …    ADD path :value, …    DELETE path :value, …
//!   value    operand, or operand + operand, or operand - operand
//!   operand  path, or :value, or if_not_exists(path, operand), or list_append(operand, operand)
//! ```

use super::lexer::{Symbol, Token};
use super::{Bindings, Fault, ParseError, ParseProblem, Parser, parse_whole};
use crate::expression::path::Path;
use crate::expression::rule::{Use, check_use};
use crate::expression::update::{Action, SetOperand, SetValue, Update};

/// A part of an update: one kind of action.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clause {
    Set,
    Remove,
    Add,
    Delete,
}

impl Clause {
    const ALL: [Self; 4] = [Self::Set, Self::Remove, Self::Add, Self::Delete];

    fn keyword(self) -> &'static str {
        match self {
            Self::Set => "SET",
            Self::Remove => "REMOVE",
            Self::Add => "ADD",
            Self::Delete => "DELETE",
        }
    }
}

impl Update {
    /// Reads an update. Whether it leaves the key alone is another question: [`Update::check_keys`].
    ///
    /// # Errors
    /// [`ParseError`] with the place.
    pub fn parse(text: &str, bindings: &mut Bindings) -> Result<Self, ParseError> {
        parse_whole(text, bindings, |parser| {
            let update = parser.update()?;
            update.check_places().map_err(|error| (0, error.into()))?;
            Ok(update)
        })
    }
}

impl Parser<'_> {
    fn update(&mut self) -> Result<Update, Fault> {
        let mut actions = Vec::new();
        let mut seen: Vec<Clause> = Vec::new();
        loop {
            let Some(clause) = Clause::ALL.into_iter().find(|clause| self.peek_keyword(clause.keyword()))
            else {
                if seen.is_empty() {
                    return Err(self.unexpected("SET, REMOVE, ADD or DELETE"));
                }
                return Ok(Update { actions });
            };
            if seen.contains(&clause) {
                return Err((self.position(), ParseProblem::ClauseTwice { clause: clause.keyword() }));
            }
            seen.push(clause);
            self.advance();
            loop {
                actions.push(self.action(clause)?);
                if !self.take_symbol(Symbol::Comma) {
                    break;
                }
            }
        }
    }

    fn action(&mut self, clause: Clause) -> Result<Action, Fault> {
        self.count_nodes(1, self.position())?;
        let path = self.path()?;
        match clause {
            Clause::Set => self.set(path),
            Clause::Remove => Ok(Action::Remove { path }),
            Clause::Add => Ok(Action::Add { path, value: self.value(Use::Add, "a :value to add")? }),
            Clause::Delete => {
                Ok(Action::Delete { path, value: self.value(Use::Delete, "a :value to delete")? })
            }
        }
    }

    fn set(&mut self, path: Path) -> Result<Action, Fault> {
        self.expect_symbol(Symbol::Equal)?;
        let start = self.position();
        let left = self.set_operand(Use::Any)?;
        let (join, usage): (fn(SetOperand, SetOperand) -> SetValue, _) = match self.peek() {
            Token::Symbol(Symbol::Plus) => (SetValue::Sum, Use::Arithmetic("+")),
            Token::Symbol(Symbol::Minus) => (SetValue::Difference, Use::Arithmetic("-")),
            Token::Symbol(_)
            | Token::Word(_)
            | Token::Name(_)
            | Token::Value(_)
            | Token::Integer(_)
            | Token::End => return Ok(Action::Set { path, value: SetValue::Operand(left) }),
        };
        self.count_nodes(1, self.position())?;
        self.advance();
        check_set_operand(&left, usage, start)?;
        let right = self.set_operand(usage)?;
        Ok(Action::Set { path, value: join(left, right) })
    }

    fn set_operand(&mut self, usage: Use) -> Result<SetOperand, Fault> {
        const EXPECTED: &str = "a document path, a :value or a function";
        match self.peek_function() {
            Some("if_not_exists") => {
                self.open_function()?;
                let path = self.path()?;
                self.expect_symbol(Symbol::Comma)?;
                let otherwise = Box::new(self.nested(|parser| parser.set_operand(usage))?);
                self.expect_symbol(Symbol::Close)?;
                return Ok(SetOperand::IfNotExists { path, otherwise });
            }
            Some("list_append") => {
                self.open_function()?;
                let first = Box::new(self.nested(|parser| parser.set_operand(Use::ListAppend))?);
                self.expect_symbol(Symbol::Comma)?;
                let second = Box::new(self.nested(|parser| parser.set_operand(Use::ListAppend))?);
                self.expect_symbol(Symbol::Close)?;
                return Ok(SetOperand::ListAppend { first, second });
            }
            Some(name) => return Err(self.unknown_function(name, "if_not_exists and list_append")),
            None => {}
        }
        match self.peek() {
            Token::Value(_) => Ok(SetOperand::Value(self.value(usage, EXPECTED)?)),
            Token::Word(_) | Token::Name(_) => Ok(SetOperand::Path(self.path()?)),
            Token::Integer(_) | Token::Symbol(_) | Token::End => Err(self.unexpected(EXPECTED)),
        }
    }
}

/// Checks the constants of an operand that was read before its operator.
fn check_set_operand(operand: &SetOperand, usage: Use, position: usize) -> Result<(), Fault> {
    match operand {
        SetOperand::Value(value) => check_use(usage, value.view()).map_err(|error| (position, error.into())),
        SetOperand::IfNotExists { path: _, otherwise } => check_set_operand(otherwise, usage, position),
        SetOperand::Path(_) | SetOperand::ListAppend { .. } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::{ExpressionError, ParseProblem, access_update, encode_update, validate_update};
    use crate::item::{Item, Value, ValueType};
    use crate::key::{KeySchema, KeyType};

    fn bindings() -> Bindings {
        Bindings::new()
            .with_name("#n", "odd name.")
            .with_value(":n", 1)
            .with_value(":s", "text")
            .with_value(":l", vec![Value::Null])
            .with_value(":m", Item::new())
            .with_value(":ss", Value::string_set(["a"]).expect("a set"))
    }

    /// Reads an update, and checks that it is the one expected and passes the edge.
    fn check(text: &str, actions: Vec<Action>) {
        let update = Update::parse(text, &mut bindings()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(update, Update { actions }, "{text}");
        let bytes = encode_update(&update).expect("what was parsed can be sent");
        validate_update(access_update(&bytes).expect("an archive")).expect("valid");
    }

    fn check_problem(text: &str, position: usize, problem: impl Into<ParseProblem>) {
        let error = Update::parse(text, &mut bindings()).expect_err(text);
        assert_eq!((error.position(), error.problem()), (position, &problem.into()), "{error}");
    }

    fn set(path: Path, operand: SetOperand) -> Action {
        Action::Set { path, value: SetValue::Operand(operand) }
    }

    fn path(name: &str) -> SetOperand {
        SetOperand::Path(Path::new(name))
    }

    #[test]
    fn clauses_come_in_any_order_and_case() {
        check(
            "remove a, b[1].c Set d = :s, #n.x=:m DELETE e :ss add f :n",
            vec![
                Action::Remove { path: Path::new("a") },
                Action::Remove { path: Path::new("b").index(1).field("c") },
                set(Path::new("d"), SetOperand::Value("text".into())),
                set(Path::new("odd name.").field("x"), SetOperand::Value(Item::new().into())),
                Action::Delete { path: Path::new("e"), value: Value::string_set(["a"]).expect("a set") },
                Action::Add { path: Path::new("f"), value: 1.into() },
            ],
        );
    }

    #[test]
    fn values_are_operands_sums_differences_and_functions() {
        let one = || SetOperand::Value(1.into());
        let list = || Box::new(SetOperand::Value(vec![Value::Null].into()));
        check("SET a = b", vec![set(Path::new("a"), path("b"))]);
        let a = || Path::new("a");
        check("SET a = a + :n", vec![Action::Set { path: a(), value: SetValue::Sum(path("a"), one()) }]);
        check("SET a = :n-b", vec![Action::Set { path: a(), value: SetValue::Difference(one(), path("b")) }]);
        let counted = SetOperand::IfNotExists { path: a(), otherwise: Box::new(one()) };
        check(
            "SET a = if_not_exists(a, :n) + :n",
            vec![Action::Set { path: a(), value: SetValue::Sum(counted, one()) }],
        );
        let started = SetOperand::IfNotExists { path: a(), otherwise: list() };
        check(
            "SET a = list_append(if_not_exists(a, :l), :l)",
            vec![set(a(), SetOperand::ListAppend { first: Box::new(started), second: list() })],
        );
    }

    #[test]
    fn a_function_name_is_an_attribute_name_without_a_call() {
        check("SET list_append = if_not_exists", vec![set(Path::new("list_append"), path("if_not_exists"))]);
    }

    #[test]
    fn mistakes_are_told_where_they_are() {
        let unexpected =
            |found: &str, expected| ParseProblem::Unexpected { found: found.to_owned(), expected };
        check_problem("", 0, unexpected("the end", "SET, REMOVE, ADD or DELETE"));
        check_problem("PUT a = :n", 0, unexpected("\"PUT\"", "SET, REMOVE, ADD or DELETE"));
        check_problem("SET a = :n SET b = :n", 11, ParseProblem::ClauseTwice { clause: "SET" });
        check_problem("SET a", 5, unexpected("the end", "="));
        check_problem("SET :n = :n", 4, unexpected("\":n\"", "a document path"));
        check_problem("SET a = ", 8, unexpected("the end", "a document path, a :value or a function"));
        check_problem("SET a = :n + :n + :n", 16, unexpected("\"+\"", "the end, or an operator"));
        check_problem("REMOVE a[:n]", 9, unexpected("\":n\"", "an index"));
        check_problem("REMOVE a[4294967296]", 9, ParseProblem::IndexTooLarge { index_max: u32::MAX });
        check_problem("ADD a b", 6, unexpected("\"b\"", "a :value to add"));
        let allowed = "if_not_exists and list_append";
        check_problem(
            "SET a = size(b)",
            8,
            ParseProblem::UnknownFunction { name: "size".to_owned(), allowed },
        );
        let keyword = ParseProblem::Keyword { word: "set".to_owned(), expected: "a document path" };
        check_problem("REMOVE set", 7, keyword);
    }

    #[test]
    fn constants_of_the_wrong_type_are_refused() {
        let wrong = |operator, found| ExpressionError::OperandType { operator, found };
        check_problem("ADD a :s", 6, wrong("ADD", ValueType::S));
        check_problem("ADD a :l", 6, wrong("ADD", ValueType::L));
        check_problem("DELETE a :n", 9, wrong("DELETE", ValueType::N));
        check_problem("SET a = :s + :n", 8, wrong("+", ValueType::S));
        check_problem("SET a = b - :l", 12, wrong("-", ValueType::L));
        check_problem("SET a = if_not_exists(b, :s) + :n", 8, wrong("+", ValueType::S));
        check_problem("SET a = list_append(b, :n)", 23, wrong("list_append", ValueType::N));
    }

    #[test]
    fn one_place_is_changed_once() {
        let names = |first: &str, second: &str| (first.to_owned(), second.to_owned());
        for (text, (first, second)) in [
            ("SET a = :n REMOVE a", names("a", "a")),
            ("SET a.b = :n, a = :n", names("a.b", "a")),
            ("SET a[1] = :n REMOVE a[1].b", names("a[1]", "a[1].b")),
        ] {
            check_problem(text, 0, ExpressionError::PathsOverlap { first, second });
        }
        let (first, second) = names("a.b", "a[1]");
        check_problem("SET a.b = :n, a[1] = :n", 0, ExpressionError::PathsConflict { first, second });
    }

    #[test]
    fn the_key_is_left_alone() {
        let schema = KeySchema::partition_only("pk", KeyType::S).with_sort("sk", KeyType::N);
        let check = |text: &str| {
            let update = Update::parse(text, &mut bindings()).expect("an update");
            let bytes = encode_update(&update).expect("an update");
            let result = update.check_keys(&schema);
            assert_eq!(access_update(&bytes).expect("an archive").check_keys(&schema), result);
            result
        };
        assert_eq!(check("SET a = pk, pk2 = sk"), Ok(()));
        let updated = |name: &str| Err(ExpressionError::KeyUpdated { name: name.to_owned() });
        assert_eq!(check("SET a = :n REMOVE pk"), updated("pk"));
        assert_eq!(check("ADD sk :n"), updated("sk"));
        assert_eq!(check("SET sk.x = :n"), updated("sk"));
    }
}
