//! Text to trees: recursive descent over a bounded text.
//!
//! The parser knows one token ahead, and for a word whether a parenthesis follows. Every operator and
//! function is counted and every nesting is measured as it is read, so a hostile text costs no more than its
//! length.

mod bindings;
mod condition;
mod error;
mod key_condition;
mod lexer;
mod update;

pub use bindings::{Bindings, UnusedBindings};
pub use error::{ParseError, ParseProblem};
pub use key_condition::KeyCondition;

use super::condition::take_nodes;
use super::error::ExpressionError;
use super::path::{Path, Step, check_path};
use super::rule::{Use, check_use};
use crate::item::{Value, check_value};
use crate::limits::{EXPRESSION_BYTES_MAX, EXPRESSION_DEPTH_MAX, EXPRESSION_NODES_MAX};
use lexer::{Symbol, Token, tokens};

/// Words that the grammar takes for itself: as attribute names they need a `#name`.
const KEYWORDS: [&str; 9] = ["AND", "OR", "NOT", "BETWEEN", "IN", "SET", "REMOVE", "ADD", "DELETE"];

/// What went wrong, and where in the text.
type Fault = (usize, ParseProblem);

/// Reads a text from beginning to end.
struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(usize, Token<'a>)>,
    next: usize,
    depth: usize,
    nodes_left: usize,
    bindings: &'a mut Bindings,
}

/// Reads all of a text with one of the parser's rules.
fn parse_whole<T>(
    text: &str,
    bindings: &mut Bindings,
    rule: impl FnOnce(&mut Parser<'_>) -> Result<T, Fault>,
) -> Result<T, ParseError> {
    parse_tokens(text, bindings, rule).map_err(|(position, problem)| ParseError::new(text, position, problem))
}

fn parse_tokens<T>(
    text: &str,
    bindings: &mut Bindings,
    rule: impl FnOnce(&mut Parser<'_>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    if text.len() > EXPRESSION_BYTES_MAX {
        let problem = ParseProblem::TextTooLong { bytes: text.len(), bytes_max: EXPRESSION_BYTES_MAX };
        return Err((EXPRESSION_BYTES_MAX, problem));
    }
    let mut parser =
        Parser { text, tokens: tokens(text)?, next: 0, depth: 0, nodes_left: EXPRESSION_NODES_MAX, bindings };
    let tree = rule(&mut parser)?;
    match parser.peek() {
        Token::End => Ok(tree),
        Token::Word(_) | Token::Name(_) | Token::Value(_) | Token::Integer(_) | Token::Symbol(_) => {
            Err(parser.unexpected("the end, or an operator"))
        }
    }
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens.get(self.next).map_or(Token::End, |(_, token)| *token)
    }

    /// Where the next token begins.
    fn position(&self) -> usize {
        self.tokens.get(self.next).map_or(self.text.len(), |(position, _)| *position)
    }

    fn advance(&mut self) {
        self.next += 1;
    }

    fn unexpected(&self, expected: &'static str) -> Fault {
        (self.position(), ParseProblem::Unexpected { found: self.peek().to_string(), expected })
    }

    fn take_symbol(&mut self, symbol: Symbol) -> bool {
        let found = self.peek() == Token::Symbol(symbol);
        self.next += usize::from(found);
        found
    }

    fn expect_symbol(&mut self, symbol: Symbol) -> Result<(), Fault> {
        if self.take_symbol(symbol) { Ok(()) } else { Err(self.unexpected(symbol.text())) }
    }

    fn peek_keyword(&self, keyword: &str) -> bool {
        matches!(self.peek(), Token::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    fn take_keyword(&mut self, keyword: &str) -> bool {
        let found = self.peek_keyword(keyword);
        self.next += usize::from(found);
        found
    }

    /// The name of the function that is called next, if a call comes next.
    fn peek_function(&self) -> Option<&'a str> {
        let Token::Word(word) = self.peek() else { return None };
        let (_, following) = self.tokens.get(self.next + 1)?;
        let is_keyword = KEYWORDS.iter().any(|keyword| word.eq_ignore_ascii_case(keyword));
        (*following == Token::Symbol(Symbol::Open) && !is_keyword).then_some(word)
    }

    /// Reads the `name(` of a call that was seen to come.
    fn open_function(&mut self) -> Result<(), Fault> {
        let position = self.position();
        self.advance();
        self.advance();
        self.count_nodes(1, position)
    }

    fn unknown_function(&self, name: &str, allowed: &'static str) -> Fault {
        (self.position(), ParseProblem::UnknownFunction { name: name.to_owned(), allowed })
    }

    /// Runs a rule one level deeper.
    fn nested<T>(&mut self, rule: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        if self.depth == EXPRESSION_DEPTH_MAX {
            let error = ExpressionError::TooDeep { depth_max: EXPRESSION_DEPTH_MAX };
            return Err((self.position(), error.into()));
        }
        self.depth += 1;
        let tree = rule(self)?;
        self.depth -= 1;
        Ok(tree)
    }

    fn count_nodes(&mut self, nodes: usize, position: usize) -> Result<(), Fault> {
        take_nodes(nodes, &mut self.nodes_left).map_err(|error| (position, error.into()))
    }

    /// A document path: names, steps into maps and steps into lists.
    fn path(&mut self) -> Result<Path, Fault> {
        let position = self.position();
        let mut path = Path::new(self.name("a document path")?);
        loop {
            if self.take_symbol(Symbol::Dot) {
                path.steps.push(Step::Field(self.name("an attribute name")?));
            } else if self.take_symbol(Symbol::OpenBracket) {
                path.steps.push(Step::Index(self.index()?));
                self.expect_symbol(Symbol::CloseBracket)?;
            } else {
                break;
            }
        }
        check_path(|| path.views()).map_err(|error| (position, error.into()))?;
        Ok(path)
    }

    /// An attribute name, written as a word or as a `#name`.
    fn name(&mut self, expected: &'static str) -> Result<String, Fault> {
        let name = match self.peek() {
            Token::Word(word) => {
                if KEYWORDS.iter().any(|keyword| word.eq_ignore_ascii_case(keyword)) {
                    return Err((self.position(), ParseProblem::Keyword { word: word.to_owned(), expected }));
                }
                word.to_owned()
            }
            Token::Name(placeholder) => match self.bindings.name(placeholder) {
                Some(name) => name,
                None => {
                    return Err((
                        self.position(),
                        ParseProblem::NameUnbound { placeholder: placeholder.to_owned() },
                    ));
                }
            },
            Token::Value(_) | Token::Integer(_) | Token::Symbol(_) | Token::End => {
                return Err(self.unexpected(expected));
            }
        };
        self.advance();
        Ok(name)
    }

    fn index(&mut self) -> Result<u32, Fault> {
        match self.peek() {
            Token::Integer(digits) => match digits.parse() {
                Ok(index) => {
                    self.advance();
                    Ok(index)
                }
                Err(_) => Err((self.position(), ParseProblem::IndexTooLarge { index_max: u32::MAX })),
            },
            Token::Word(_) | Token::Name(_) | Token::Value(_) | Token::Symbol(_) | Token::End => {
                Err(self.unexpected("an index"))
            }
        }
    }

    /// A `:value`, of a type that its use takes.
    fn value(&mut self, usage: Use, expected: &'static str) -> Result<Value, Fault> {
        let position = self.position();
        let value = match self.peek() {
            Token::Value(placeholder) => match self.bindings.value(placeholder) {
                Some(value) => value,
                None => {
                    return Err((
                        position,
                        ParseProblem::ValueUnbound { placeholder: placeholder.to_owned() },
                    ));
                }
            },
            Token::Word(_) | Token::Name(_) | Token::Integer(_) | Token::Symbol(_) | Token::End => {
                return Err(self.unexpected(expected));
            }
        };
        check_value(value.view()).map_err(|error| (position, ExpressionError::from(error).into()))?;
        check_use(usage, value.view()).map_err(|error| (position, error.into()))?;
        self.advance();
        Ok(value)
    }
}
