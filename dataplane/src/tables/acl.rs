//! What may pass, stateless: the first rule that a packet meets decides, and what meets none passes.

use super::filter::Match;
use crate::packet::{DropReason, Exit};

/// What happens to a packet that meets a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It passes.
    Permit,
    /// It is dropped in silence.
    Deny,
    /// It is dropped, and its sender told.
    Reject,
}

impl Action {
    /// As the file says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::Deny => "deny",
            Self::Reject => "reject",
        }
    }

    /// What a stage says of such a packet.
    pub const fn verdict(self) -> Result<(), Exit> {
        match self {
            Self::Permit => Ok(()),
            Self::Deny => Err(Exit::Drop(DropReason::AclDeny)),
            Self::Reject => Err(Exit::Drop(DropReason::AclReject)),
        }
    }
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which packets.
    pub matches: Match,
    /// What happens to them.
    pub action: Action,
}
