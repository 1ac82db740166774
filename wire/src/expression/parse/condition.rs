//! The grammar of conditions.
//!
//! ```text
//!   condition   all { OR all }
//!   all         negation { AND negation }
//!   negation    NOT negation, or ( condition ), or function, or comparison
//!   function    attribute_exists(path) attribute_not_exists(path) attribute_type(operand, :type)
//!               begins_with(operand, operand) contains(operand, operand)
//!   comparison  operand = operand, and <> < <= > >=
//!               operand BETWEEN operand AND operand
//!               operand IN (operand, …)
//!   operand     path, or :value, or size(path)
//! ```

use super::lexer::{Symbol, Token};
use super::{Bindings, Fault, ParseError, ParseProblem, Parser, parse_whole};
use crate::expression::condition::{Comparator, Condition, Operand};
use crate::expression::rule::{Use, check_between, check_count, check_use};
use crate::item::{Value, ValueType};
use crate::limits::IN_OPERANDS_MAX;

const FUNCTIONS: &str =
    "attribute_exists, attribute_not_exists, attribute_type, begins_with, contains, and size in comparisons";

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// [`ParseError`] with the place.
    pub fn parse(text: &str, bindings: &mut Bindings) -> Result<Self, ParseError> {
        parse_whole(text, bindings, |parser| {
            let condition = parser.condition()?;
            condition.check_depth().map_err(|error| (0, error.into()))?;
            Ok(condition)
        })
    }
}

impl Parser<'_> {
    fn condition(&mut self) -> Result<Condition, Fault> {
        self.chain("OR", Self::all, Condition::Or)
    }

    fn all(&mut self) -> Result<Condition, Fault> {
        self.chain("AND", Self::negation, Condition::And)
    }

    /// One or more conditions with a keyword between them, as one condition.
    fn chain(
        &mut self,
        keyword: &'static str,
        rule: fn(&mut Self) -> Result<Condition, Fault>,
        join: fn(Vec<Condition>) -> Condition,
    ) -> Result<Condition, Fault> {
        let first = rule(self)?;
        if !self.peek_keyword(keyword) {
            return Ok(first);
        }
        let mut conditions = vec![first];
        loop {
            let position = self.position();
            if !self.take_keyword(keyword) {
                return Ok(join(conditions));
            }
            self.count_nodes(1, position)?;
            conditions.push(rule(self)?);
        }
    }

    fn negation(&mut self) -> Result<Condition, Fault> {
        let position = self.position();
        if self.take_keyword("NOT") {
            self.count_nodes(1, position)?;
            return Ok(Condition::Not(Box::new(self.nested(Self::negation)?)));
        }
        if self.take_symbol(Symbol::Open) {
            let condition = self.nested(Self::condition)?;
            self.expect_symbol(Symbol::Close)?;
            return Ok(condition);
        }
        match self.peek_function() {
            Some("size") | None => self.comparison(),
            Some(name) => self.function(name),
        }
    }

    fn function(&mut self, name: &str) -> Result<Condition, Fault> {
        let unknown = self.unknown_function(name, FUNCTIONS);
        let condition = match name {
            "attribute_exists" => {
                self.open_function()?;
                Condition::AttributeExists(self.path()?)
            }
            "attribute_not_exists" => {
                self.open_function()?;
                Condition::AttributeNotExists(self.path()?)
            }
            "attribute_type" => {
                self.open_function()?;
                let operand = self.whole_operand(Use::Any)?;
                self.expect_symbol(Symbol::Comma)?;
                Condition::AttributeType { operand, value_type: self.type_value()? }
            }
            "begins_with" => {
                self.open_function()?;
                let operand = self.whole_operand(Use::Prefix)?;
                self.expect_symbol(Symbol::Comma)?;
                Condition::BeginsWith { operand, prefix: self.whole_operand(Use::Prefix)? }
            }
            "contains" => {
                self.open_function()?;
                let container = self.whole_operand(Use::Any)?;
                self.expect_symbol(Symbol::Comma)?;
                Condition::Contains { container, element: self.whole_operand(Use::Any)? }
            }
            _ => return Err(unknown),
        };
        self.expect_symbol(Symbol::Close)?;
        Ok(condition)
    }

    fn comparison(&mut self) -> Result<Condition, Fault> {
        let start = self.position();
        let operand = self.operand(Use::Any)?;
        let position = self.position();
        if self.take_keyword("BETWEEN") {
            self.count_nodes(1, position)?;
            return self.between(operand, start);
        }
        if self.take_keyword("IN") {
            self.count_nodes(1, position)?;
            return self.candidates(operand);
        }
        let comparator = self.comparator("a comparator, BETWEEN or IN")?;
        self.count_nodes(1, position)?;
        check_operand(&operand, comparator.usage(), start)?;
        let right = self.operand(comparator.usage())?;
        Ok(Condition::Compare { comparator, left: operand, right })
    }

    fn between(&mut self, operand: Operand, start: usize) -> Result<Condition, Fault> {
        let usage = Use::Ordering("BETWEEN");
        check_operand(&operand, usage, start)?;
        let position = self.position();
        let low = self.operand(usage)?;
        if !self.take_keyword("AND") {
            return Err(self.unexpected("AND, and the upper bound"));
        }
        let high = self.operand(usage)?;
        if let (Operand::Value(low), Operand::Value(high)) = (&low, &high) {
            check_between(low.view(), high.view()).map_err(|error| (position, error.into()))?;
        }
        Ok(Condition::Between { operand, low, high })
    }

    fn candidates(&mut self, operand: Operand) -> Result<Condition, Fault> {
        let position = self.position();
        self.expect_symbol(Symbol::Open)?;
        let mut candidates = vec![self.operand(Use::Any)?];
        while self.take_symbol(Symbol::Comma) {
            candidates.push(self.operand(Use::Any)?);
        }
        self.expect_symbol(Symbol::Close)?;
        check_count("IN", candidates.len(), 1, IN_OPERANDS_MAX).map_err(|error| (position, error.into()))?;
        Ok(Condition::In { operand, candidates })
    }

    pub(super) fn comparator(&mut self, expected: &'static str) -> Result<Comparator, Fault> {
        let comparator = match self.peek() {
            Token::Symbol(Symbol::Equal) => Comparator::Equal,
            Token::Symbol(Symbol::NotEqual) => Comparator::NotEqual,
            Token::Symbol(Symbol::Less) => Comparator::Less,
            Token::Symbol(Symbol::LessOrEqual) => Comparator::LessOrEqual,
            Token::Symbol(Symbol::Greater) => Comparator::Greater,
            Token::Symbol(Symbol::GreaterOrEqual) => Comparator::GreaterOrEqual,
            Token::Symbol(
                Symbol::Open
                | Symbol::Close
                | Symbol::OpenBracket
                | Symbol::CloseBracket
                | Symbol::Comma
                | Symbol::Dot
                | Symbol::Plus
                | Symbol::Minus,
            )
            | Token::Word(_)
            | Token::Name(_)
            | Token::Value(_)
            | Token::Integer(_)
            | Token::End => return Err(self.unexpected(expected)),
        };
        self.advance();
        Ok(comparator)
    }

    fn operand(&mut self, usage: Use) -> Result<Operand, Fault> {
        match self.peek_function() {
            Some("size") => {
                self.open_function()?;
                let path = self.path()?;
                self.expect_symbol(Symbol::Close)?;
                Ok(Operand::Size(path))
            }
            Some(name) => Err(self.unknown_function(name, "size")),
            None => self.whole_operand(usage),
        }
    }

    /// An operand that is a value itself and not its size.
    fn whole_operand(&mut self, usage: Use) -> Result<Operand, Fault> {
        const EXPECTED: &str = "a document path or a :value";
        match self.peek() {
            Token::Value(_) => Ok(Operand::Value(self.value(usage, EXPECTED)?)),
            Token::Word(_) | Token::Name(_) => Ok(Operand::Path(self.path()?)),
            Token::Integer(_) | Token::Symbol(_) | Token::End => Err(self.unexpected(EXPECTED)),
        }
    }

    fn type_value(&mut self) -> Result<ValueType, Fault> {
        let position = self.position();
        let value = self.value(Use::Any, "a :value that names a type")?;
        let found = match &value {
            Value::S(name) => name.parse().ok(),
            _ => None,
        };
        found.ok_or((position, ParseProblem::UnknownType))
    }
}

fn check_operand(operand: &Operand, usage: Use, position: usize) -> Result<(), Fault> {
    match operand {
        Operand::Value(value) => check_use(usage, value.view()).map_err(|error| (position, error.into())),
        Operand::Path(_) | Operand::Size(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::path::Path;
    use crate::expression::{ExpressionError, access_condition, encode_condition, validate_condition};

    fn bindings() -> Bindings {
        Bindings::new()
            .with_name("#and", "and")
            .with_value(":n", 1)
            .with_value(":m", 2)
            .with_value(":s", "S")
            .with_value(":l", vec![Value::Null])
    }

    fn parse(text: &str) -> Condition {
        Condition::parse(text, &mut bindings()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Reads a condition, and checks that it is the one expected and passes the edge.
    fn check(text: &str, expected: Condition) {
        let condition = parse(text);
        assert_eq!(condition, expected, "{text}");
        let bytes = encode_condition(&condition).expect("what was parsed can be sent");
        validate_condition(access_condition(&bytes).expect("an archive")).expect("valid");
    }

    fn check_problem(text: &str, position: usize, problem: impl Into<ParseProblem>) {
        let error = Condition::parse(text, &mut bindings()).expect_err(text);
        assert_eq!((error.position(), error.problem()), (position, &problem.into()), "{error}");
    }

    fn path(name: &str) -> Operand {
        Operand::Path(Path::new(name))
    }

    fn one() -> Operand {
        Operand::Value(1.into())
    }

    fn equal(name: &str) -> Condition {
        Condition::Compare { comparator: Comparator::Equal, left: path(name), right: one() }
    }

    #[test]
    fn every_comparison_is_read() {
        for (text, comparator) in [
            ("a = :n", Comparator::Equal),
            ("a<>:n", Comparator::NotEqual),
            ("a < :n", Comparator::Less),
            ("a <= :n", Comparator::LessOrEqual),
            ("a > :n", Comparator::Greater),
            ("a >= :n", Comparator::GreaterOrEqual),
        ] {
            check(text, Condition::Compare { comparator, left: path("a"), right: one() });
        }
        check("a between :n and b", Condition::Between { operand: path("a"), low: one(), high: path("b") });
        check("#and IN (:n)", Condition::In { operand: path("and"), candidates: vec![one()] });
        check("a in (b, :n)", Condition::In { operand: path("a"), candidates: vec![path("b"), one()] });
        let size = Condition::Compare {
            comparator: Comparator::Less,
            left: Operand::Size(Path::new("a").field("b").index(3)),
            right: one(),
        };
        check("size (a.b[3]) < :n", size);
    }

    #[test]
    fn every_function_is_read() {
        check("attribute_exists(a.b)", Condition::AttributeExists(Path::new("a").field("b")));
        check("attribute_not_exists (a)", Condition::AttributeNotExists(Path::new("a")));
        check(
            "attribute_type(a, :s)",
            Condition::AttributeType { operand: path("a"), value_type: ValueType::S },
        );
        let text = || Operand::Value("S".into());
        check("begins_with(a, :s)", Condition::BeginsWith { operand: path("a"), prefix: text() });
        check("begins_with(:s, a)", Condition::BeginsWith { operand: text(), prefix: path("a") });
        check("contains(a, :n)", Condition::Contains { container: path("a"), element: one() });
        check("contains = :n", equal("contains"));
    }

    #[test]
    fn not_binds_before_and_and_and_before_or() {
        let not = |condition| Condition::Not(Box::new(condition));
        let all = Condition::And(vec![not(equal("b")), equal("c")]);
        check("a = :n OR NOT b = :n AND c = :n", Condition::Or(vec![equal("a"), all]));
        let any = Condition::Or(vec![equal("a"), equal("b")]);
        check("(a = :n or b = :n) and c = :n", Condition::And(vec![any, equal("c")]));
        check("not (((a = :n)))", not(equal("a")));
        check("a = :n AND b = :n AND c = :n", Condition::And(vec![equal("a"), equal("b"), equal("c")]));
        let between = Condition::Between { operand: path("a"), low: one(), high: Operand::Value(2.into()) };
        check("a BETWEEN :n AND :m AND b = :n", Condition::And(vec![between, equal("b")]));
    }

    #[test]
    fn mistakes_are_told_where_they_are() {
        let unexpected =
            |found: &str, expected| ParseProblem::Unexpected { found: found.to_owned(), expected };
        let operand = "a document path or a :value";
        check_problem("", 0, unexpected("the end", operand));
        check_problem("a", 1, unexpected("the end", "a comparator, BETWEEN or IN"));
        check_problem("a = :n b", 7, unexpected("\"b\"", "the end, or an operator"));
        check_problem("a = :n AND", 10, unexpected("the end", operand));
        check_problem("(a = :n", 7, unexpected("the end", ")"));
        check_problem("a IN ()", 6, unexpected("\")\"", operand));
        check_problem("a BETWEEN :n OR :m", 13, unexpected("\"OR\"", "AND, and the upper bound"));
        check_problem("attribute_exists(:n)", 17, unexpected("\":n\"", "a document path"));
        check_problem("attribute_type(a, b)", 18, unexpected("\"b\"", "a :value that names a type"));
        check_problem("attribute_type(a, :n)", 18, ParseProblem::UnknownType);
        check_problem("size(a)", 7, unexpected("the end", "a comparator, BETWEEN or IN"));
        check_problem("size(a, b) = :n", 6, unexpected("\",\"", ")"));
        check_problem("begins_with(size(a), :s)", 16, unexpected("\"(\"", ","));
        let unknown = ParseProblem::UnknownFunction { name: "Contains".to_owned(), allowed: FUNCTIONS };
        check_problem("a = :n OR Contains(a, b)", 10, unknown);
        let unbound = |placeholder: &str| placeholder.to_owned();
        check_problem("a = :x", 4, ParseProblem::ValueUnbound { placeholder: unbound(":x") });
        check_problem("#x = :n", 0, ParseProblem::NameUnbound { placeholder: unbound("#x") });
        let keyword = ParseProblem::Keyword { word: "or".to_owned(), expected: "a document path" };
        check_problem("a = :n AND or = :n", 11, keyword);
    }

    #[test]
    fn constants_of_the_wrong_type_are_refused() {
        let wrong = |operator, found| ExpressionError::OperandType { operator, found };
        check_problem("a < :l", 4, wrong("<", ValueType::L));
        check_problem(":l >= a", 0, wrong(">=", ValueType::L));
        check_problem("a BETWEEN :l AND b", 10, wrong("BETWEEN", ValueType::L));
        check_problem("begins_with(a, :n)", 15, wrong("begins_with", ValueType::N));
        check_problem("a BETWEEN :m AND :n", 10, ExpressionError::BetweenReversed);
        check_problem("a BETWEEN :n AND :s", 10, ExpressionError::BetweenReversed);
    }

    #[test]
    fn depth_length_and_number_are_bounded() {
        let nested = |levels: usize| format!("{}a = :n{}", "(".repeat(levels), ")".repeat(levels));
        parse(&nested(32));
        check_problem(&nested(33), 33, ExpressionError::TooDeep { depth_max: 32 });
        check("NOT NOT a = :n", Condition::Not(Box::new(Condition::Not(Box::new(equal("a"))))));
        parse(&format!("{} a = :n", "NOT ".repeat(31)));
        check_problem(
            &format!("{} a = :n", "NOT ".repeat(32)),
            0,
            ExpressionError::TooDeep { depth_max: 32 },
        );
        let chain = |conditions: usize| vec!["a=:n"; conditions].join(" OR ");
        parse(&chain(150));
        check_problem(&chain(151), 1201, ExpressionError::TooManyNodes { nodes_max: 300 });
        let candidates = |count: usize| format!("a IN ({})", vec![":n"; count].join(","));
        parse(&candidates(100));
        let count = ExpressionError::OperandCount {
            operator: "IN",
            operands: 101,
            operands_min: 1,
            operands_max: 100,
        };
        check_problem(&candidates(101), 5, count);
        let long = format!("a = :n{}", " ".repeat(4091));
        check_problem(&long, 4096, ParseProblem::TextTooLong { bytes: 4097, bytes_max: 4096 });
    }

    #[test]
    fn an_error_shows_the_place() {
        let error = Condition::parse("h\u{e9} = :n", &mut bindings()).expect_err("not ASCII");
        assert_eq!(
            error.to_string(),
            "'\u{e9}' is not part of any expression here\n  h\u{e9} = :n\n   ^ byte 1"
        );
        let long = format!("{} AND\n)", vec!["a = :n"; 20].join(" AND "));
        let error = Condition::parse(&long, &mut bindings()).expect_err("a parenthesis");
        let shown = error.to_string();
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1].find(')'), lines[2].find('^'), "{shown}");
    }

    #[test]
    fn placeholders_that_nobody_used_are_told_after_the_last_expression() {
        let mut bindings = bindings();
        Condition::parse("a = :n", &mut bindings).expect("a condition");
        Condition::parse("#and < :m", &mut bindings).expect("a condition");
        let unused = bindings.finish().expect_err("two were not used");
        assert_eq!(unused.placeholders, [":l", ":s"]);
        assert_eq!(unused.to_string(), "no expression uses :l, :s");
        Condition::parse("a IN (:l, :s)", &mut bindings).expect("a condition");
        assert_eq!(bindings.finish(), Ok(()));
    }
}
