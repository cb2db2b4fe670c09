package broker

import "github.com/tidewire/tidewire/protocol"

// CheckConsumer returns what [Broker.PutConsumer] would refuse, as far as that can
// be known before, and changes nothing. It may be called before Run.
func (b *Broker) CheckConsumer(name string, req *ConsumerRequest) *protocol.Error {
	if err := protocol.CheckConsumer(name); err != nil {
		return err
	}
	c := b.consumers
	if p, err := c.find(name); err == nil {
		_, err := agreed(name, settingsNow(p), req)
		return err
	}
	filter, err := protocol.ParseFilter(req.Filter)
	if err != nil {
		return protocol.AsError(err)
	}
	if err := operator.MayConsume(filter); err != nil {
		return err
	}
	if _, _, err := c.plan(name, filter, req); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.registry.Get(name); m != nil { // and it rests, or find had found it
		return protocol.Errorf(protocol.CodeConsumerExists, "the consumer %s is there already and reads the stream %s, which is not configured any more: configure that stream again, or take another name", name, m.Settings().Stream)
	}
	return c.room()
}
