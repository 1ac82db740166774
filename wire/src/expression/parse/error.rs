//! What can be wrong with a text, told so that its writer sees the place.

use crate::expression::ExpressionError;
use crate::key::KeyError;
use std::fmt;

/// Why a text is not an expression. It is shown as a sentence, the text, and a caret under the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    text: String,
    position: usize,
    problem: ParseProblem,
}

/// What is wrong at the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseProblem {
    /// The text is too long.
    #[error("an expression of {bytes} bytes is longer than {bytes_max}")]
    TextTooLong {
        /// Length of the text.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// A character that is in no token.
    #[error("{found:?} is not part of any expression here")]
    Character {
        /// The character.
        found: char,
    },
    /// A token that the grammar does not have here.
    #[error("found {found} and expected {expected}")]
    Unexpected {
        /// The token.
        found: String,
        /// What could stand here.
        expected: &'static str,
    },
    /// A word of the grammar where an attribute name must be.
    #[error("found the keyword {word:?} and expected {expected}; an attribute of that name needs a #name")]
    Keyword {
        /// The word.
        word: String,
        /// What could stand here.
        expected: &'static str,
    },
    /// A function that is not there, or not here.
    #[error("there is no function {name:?} here, but {allowed}")]
    UnknownFunction {
        /// Its name.
        name: String,
        /// The functions that may be called here.
        allowed: &'static str,
    },
    /// A `#name` without a binding.
    #[error("{placeholder} is not among the expression's attribute names")]
    NameUnbound {
        /// The placeholder.
        placeholder: String,
    },
    /// A `:value` without a binding.
    #[error("{placeholder} is not among the expression's values")]
    ValueUnbound {
        /// The placeholder.
        placeholder: String,
    },
    /// An index that no list has.
    #[error("an index is at most {index_max}")]
    IndexTooLarge {
        /// The bound.
        index_max: u32,
    },
    /// A type that is none of the ten.
    #[error("attribute_type needs one of the texts S, N, B, BOOL, NULL, SS, NS, BS, L and M")]
    UnknownType,
    /// A clause of an update that was there before.
    #[error("an update has one {clause} clause, with commas between its actions")]
    ClauseTwice {
        /// The clause.
        clause: &'static str,
    },
    /// A key condition that leaves the partition key open.
    #[error("a key condition needs {name} = :value, for the partition key")]
    PartitionKeyOpen {
        /// The partition key's name.
        name: String,
    },
    /// A key condition with two conditions on one attribute.
    #[error("a key condition has one condition on {name}")]
    KeyConditionTwice {
        /// The key attribute's name.
        name: String,
    },
    /// A condition that does not fit the table's key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A rule of the tree.
    #[error(transparent)]
    Rule(#[from] ExpressionError),
}

impl ParseError {
    pub(super) fn new(text: &str, position: usize, problem: ParseProblem) -> Self {
        Self { text: text.to_owned(), position, problem }
    }

    /// What is wrong.
    #[must_use]
    pub fn problem(&self) -> &ParseProblem {
        &self.problem
    }

    /// Where it is wrong: an offset in the text, bytes.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }
}

/// Characters of the text that are shown on each side of the place.
const CONTEXT_CHARACTERS: usize = 60;

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = self.text.split_at_checked(self.position).unwrap_or((self.text.as_str(), ""));
        let characters_before = before.chars().count();
        let shown = |character: char| if character.is_control() { ' ' } else { character };
        let start: String =
            before.chars().skip(characters_before.saturating_sub(CONTEXT_CHARACTERS)).map(shown).collect();
        let end: String = after.chars().take(CONTEXT_CHARACTERS).map(shown).collect();
        writeln!(f, "{}", self.problem)?;
        writeln!(f, "  {start}{end}")?;
        write!(
            f,
            "  {:width$}^ byte {}",
            "",
            self.position,
            width = characters_before.min(CONTEXT_CHARACTERS)
        )
    }
}

impl std::error::Error for ParseError {}
