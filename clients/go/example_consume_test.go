package tidewire_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os/signal"
	"syscall"
	"time"

	tidewire "github.com/tidewire/tidewire/clients/go"
)

// A worker: each order is handled until it succeeds, by one of all programs that
// consume as billing.
func ExampleClient_Consume() {
	broker := exampleBroker() // stands for `tidewire serve`
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()

	client, err := tidewire.Connect(ctx, tidewire.Options{
		Dial: broker.dial, // leave this out
	})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = client.Close(context.Background()) }()
	if _, err := client.Publish(ctx, tidewire.Message{Topic: "orders.eu", ID: "order-7", Payload: []byte("42")}); err != nil {
		log.Fatal(err)
	}

	err = client.Consume(ctx, "billing", func(_ context.Context, d *tidewire.Delivery) error {
		if len(d.Payload) == 0 {
			return tidewire.Reject("the order is empty") // a dead letter at once
		}
		fmt.Printf("%s: charge %s, attempt %d\n", d.ID, d.Payload, d.Attempt)
		stop()     // one is enough for an example
		return nil // done; an error would make it come again
	}, tidewire.ConsumeOptions{Filter: "orders.>", Concurrency: 4})
	fmt.Println(err)
	// Output:
	// order-7: charge 42, attempt 1
	// <nil>
}

// By hand: the program asks for the next message, and says itself what became of
// it.
func ExampleConsumer_Deliveries() {
	broker := exampleBroker() // stands for `tidewire serve`
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client, err := tidewire.Connect(ctx, tidewire.Options{
		Dial: broker.dial, // leave this out
	})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = client.Close(ctx) }()
	if _, err := client.Publish(ctx, tidewire.Message{Topic: "orders.eu", ID: "order-7", Payload: []byte("42")}); err != nil {
		log.Fatal(err)
	}

	consumer, err := client.Consumer(ctx, "billing", tidewire.ConsumeOptions{
		Filter:   "orders.>",
		Settings: tidewire.ConsumerSettings{AckWait: time.Minute, MaxDeliver: 5, Exclusive: true},
	})
	if err != nil {
		log.Fatal(err)
	}
	for d, err := range consumer.Deliveries(ctx) {
		if refusal, ok := errors.AsType[*tidewire.Error](err); ok && refusal.Code == tidewire.CodeTakenOver {
			log.Fatal("a newer worker has taken over")
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %s\n", d.ID, d.Payload)
		if err := d.AckSync(ctx); err != nil { // on the broker's disk when it returns
			log.Fatal(err)
		}
		break
	}
	// Output:
	// order-7: 42
}
