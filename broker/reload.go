package broker

// SetLimits puts other limits into effect, for those who are connected too. What
// has been let in stays.
func (b *Broker) SetLimits(o Options) {
	now := b.options()
	o.Registerer, o.Logger, o.AppendTimeout = now.Registerer, now.Logger, now.AppendTimeout
	o = o.withDefaults()
	b.settings.Store(&o)
}
