//! Owns [`SystemPressure`]: the triggers for stalls of the whole system.
//!
//! Invariant: at most one trigger per resource, registered with the driver as long as it is here.

use std::os::fd::AsFd;

use crate::cgroup::Trigger;
use crate::driver::{Driver, Readiness, Registration, Source};
use crate::error::{Error, Result};
use crate::event::{Event, Stall, Stallable};
use crate::id::Token;

/// The triggers for stalls of the whole system.
#[derive(Debug, Default)]
pub(crate) struct SystemPressure {
    armed: Vec<Armed>,
}

#[derive(Debug)]
struct Armed {
    resource: Stallable,
    token: Token,
    trigger: Trigger,
    registration: Registration,
}

impl SystemPressure {
    /// Watches for stalls for a resource. A second call for the same resource replaces the first.
    pub(crate) fn watch(
        &mut self,
        driver: &mut Driver,
        resource: Stallable,
        stall: Stall,
        token: Token,
    ) -> Result<()> {
        let trigger = Trigger::arm_for_system(resource, stall)?;
        let source = Source::SystemPressure(resource);
        let registration = driver
            .register(trigger.as_fd(), Readiness::ReadableOrPriority, source)
            .map_err(Error::event_loop("watch a pressure file"))?;
        self.unwatch(driver, resource);
        self.armed.push(Armed { resource, token, trigger, registration });
        Ok(())
    }

    /// Ends a watch of [`watch`](Self::watch).
    pub(crate) fn unwatch(&mut self, driver: &mut Driver, resource: Stallable) {
        if let Some(place) = self.armed.iter().position(|armed| armed.resource == resource) {
            let Armed { trigger, registration, .. } = self.armed.swap_remove(place);
            driver.deregister(trigger.as_fd(), registration);
        }
    }

    /// Handles a ready trigger: returns the event if it has fired.
    pub(crate) fn ready(&mut self, registration: Registration, priority: bool) -> Option<Event> {
        let armed = self.armed.iter_mut().find(|armed| armed.registration == registration)?;
        let Armed { resource, token, .. } = *armed;
        let fired = armed.trigger.fired(priority);
        fired.then_some(Event::SystemPressure { token, resource })
    }
}
