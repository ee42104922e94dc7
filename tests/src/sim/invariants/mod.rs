//! What must hold, a file each. All of them panic with what is wrong.

pub mod acknowledged;
pub mod agreement;
pub mod bounded;
pub mod bridge;
pub mod credit;
pub mod durable;
pub mod ledger;
pub mod model;
pub mod once;
pub mod truth;
pub mod verdicts;

use super::World;

/// Everything that holds at the end of every run, cheaters or not.
pub fn at_the_end(world: &mut World) {
    agreement::one_chain_and_one_ledger(world);
    bounded::pools_are_empty(world);
    credit::banned_keys_have_none(world);
    ledger::rows_are_what_shares_say(world);
    once::a_unit_earns_once(world);
    truth::what_stands_is_true(world);
    acknowledged::nothing_is_lost(world);
    bridge::what_is_deep_is_delivered(world);
}
