//! An epoch, from the guardians' contributions to one commit.
//!
//! [`contribution`] is what a guardian proposes and [`propose`] makes one, when [`window`] says so; [`pool`] is where
//! transactions wait for that (its rules are in [`entries`]). [`verify`] checks signatures and inputs without state,
//! [`ahead`] does that and more for epochs that wait, [`presume`] leaves it out where others' word for it is enough, [`apply`] applies an agreed batch under the rules that [`version`]
//! says are in force, and counts [`faults`]; [`commit`] makes one durable, or several that have [arrived](arrivals)
//! together. [`main_loop`] drives it all.

pub mod ahead;
pub mod apply;
pub mod arrivals;
pub mod commit;
#[cfg(test)]
mod commit_tests;
pub mod contribution;
pub mod entries;
#[cfg(test)]
mod entries_tests;
pub mod faults;
#[cfg(test)]
mod federation_tests;
pub mod main_loop;
pub mod pool;
#[cfg(test)]
mod pool_tests;
pub mod presume;
pub mod propose;
#[cfg(test)]
mod tests;
pub mod verify;
#[cfg(test)]
mod verify_tests;
pub mod version;
pub mod window;
#[cfg(test)]
mod window_tests;
