//! Lands a candidate, or finds out whether it has landed.

use towpath_core::effect::Landing;
use towpath_core::gate::{GateEvent, LandTried};
use towpath_core::outbox::TroubleClass;
use towpath_forge::Forge;

use super::{Failure, Hands};

/// Carries the effect out. A branch that contains the candidate is success, whoever moved it there (trust S10).
///
/// A landing that was taken back is not tried, but asked about: an earlier try may have happened. So is one of which
/// a halt has come to know only after it was claimed.
pub fn run(hands: &Hands, landing: &Landing, cancelled: bool) -> Result<GateEvent, Failure> {
    let forge = hands.forges.get(&landing.repo)?;
    let result = match cancelled {
        false => {
            not_halted(hands)?;
            forge.land(landing)?
        }
        true => match forge.read(&landing.branch, Some(landing.to))?.keeps_landed {
            true => LandTried::Landed,
            false => LandTried::Withdrawn,
        },
    };
    Ok(GateEvent::LandTried { candidate: landing.candidate, result })
}

/// The last line: the gate is told of a halt as well, and takes the landing back.
fn not_halted(hands: &Hands) -> Result<(), Failure> {
    let halts = hands.store.halts();
    let halts = halts.map_err(|error| Failure::new(TroubleClass::Transient, error.to_string()))?;
    match halts.into_iter().next() {
        Some((_, why)) => Err(Failure::new(TroubleClass::Denied, format!("nothing lands: {why}"))),
        None => Ok(()),
    }
}
