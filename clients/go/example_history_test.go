package tidewire_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	tidewire "github.com/tidewire/tidewire/clients/go"
)

// Read everything that is stored on a topic, and follow it from there.
func ExampleClient_HistoryPages() {
	broker := exampleBroker() // stands for `tidewire serve`

	ctx := context.Background()
	client, err := tidewire.Connect(ctx, tidewire.Options{
		Dial: broker.dial, // leave this out
	})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = client.Close(ctx) }()

	from := "earliest"
	for page, err := range client.HistoryPages(ctx, "room.42.chat", tidewire.HistoryOptions{From: from}) {
		if err != nil {
			log.Fatal(err)
		}
		if page.Gap != nil {
			log.Print(page.Gap)
		}
		for _, m := range page.Messages {
			fmt.Printf("%s: %s\n", m.Position, m.Payload)
		}
		from = page.Next
	}
	fmt.Println("go on after", from)
	// Output:
	// p25-1: hello
	// go on after p25-1
}

// The newest messages, as a chat shows them when it is opened.
func ExampleClient_History() {
	ctx := context.Background()
	client, err := tidewire.Connect(ctx, tidewire.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = client.Close(ctx) }()

	page, err := client.History(ctx, "room.42.chat", tidewire.HistoryOptions{Before: "new", Limit: 20})
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range page.Messages { // the oldest of them first
		fmt.Printf("%s\n", m.Payload)
	}
	older, err := client.History(ctx, "room.42.chat", tidewire.HistoryOptions{Before: page.Next, Limit: 20})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(older.Messages), "before those")
}

// Many messages at once, each with its own outcome.
func ExampleClient_PublishBatch() {
	broker := exampleBroker() // stands for `tidewire serve`

	ctx := context.Background()
	client, err := tidewire.Connect(ctx, tidewire.Options{
		Dial: broker.dial, // leave this out
	})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = client.Close(ctx) }()

	receipts, err := client.PublishBatch(ctx, []tidewire.Message{
		{Topic: "orders.new", ID: "order-7", Payload: []byte(`{"total":7}`)},
		{Topic: "orders..new", ID: "order-8", Payload: []byte(`{"total":8}`)},
	})
	failed, ok := errors.AsType[*tidewire.BatchError](err)
	if err != nil && !ok {
		log.Fatal(err)
	}
	for i, r := range receipts {
		if failed != nil && failed.Errs[i] != nil {
			fmt.Println(failed.Errs[i])
			continue
		}
		fmt.Println(r.ID, "is stored at", r.Position)
	}
	// Output:
	// order-7 is stored at p25-1
	// invalid_topic: the topic "orders..new" has an empty token: write one '.' between two tokens and none at the start
}
