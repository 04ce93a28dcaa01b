//! Lands a candidate, or finds out whether it has landed.

use towpath_core::effect::Landing;
use towpath_core::gate::{GateEvent, LandTried};
use towpath_forge::Forge;

use super::{Failure, Hands};

/// Carries the effect out. A branch that contains the candidate is success, whoever moved it there (trust S10).
///
/// A landing that was taken back is not tried, but asked about: an earlier try may have happened.
pub fn run(hands: &Hands, landing: &Landing, cancelled: bool) -> Result<GateEvent, Failure> {
    let forge = hands.forges.get(&landing.repo)?;
    let result = match cancelled {
        false => forge.land(landing)?,
        true => match forge.read(&landing.branch, Some(landing.to))?.keeps_landed {
            true => LandTried::Landed,
            false => LandTried::Withdrawn,
        },
    };
    Ok(GateEvent::LandTried { candidate: landing.candidate, result })
}
