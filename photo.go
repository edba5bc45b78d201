package citywarden

import "time"

// PhotoID is the SHA-256 of a photo as it is kept, in hex.
type PhotoID string

// Photo is a picture as it is kept: without anything that the camera wrote
// besides.
type Photo struct {
	ID     PhotoID `json:"id"`
	Type   string  `json:"type"` // image/jpeg, image/png or image/webp
	Bytes  int     `json:"bytes"`
	Width  int     `json:"width"` // as stored; it may have to be turned
	Height int     `json:"height"`
}

// AttachmentKind says what a photo of a case shows.
type AttachmentKind string

// The kinds of attachments.
const (
	PhotoNear         AttachmentKind = "near"          // 近景
	PhotoFar          AttachmentKind = "far"           // 远景
	PhotoReference    AttachmentKind = "reference"     // 参照物
	PhotoHandleBefore AttachmentKind = "handle_before" // 处置前
	PhotoHandleAfter  AttachmentKind = "handle_after"  // 处置后
)

// AttachmentKinds are all kinds of attachments.
var AttachmentKinds = []AttachmentKind{PhotoNear, PhotoFar, PhotoReference, PhotoHandleBefore, PhotoHandleAfter}

// Text returns the name of the kind.
func (k AttachmentKind) Text() Text {
	if t, ok := photoTexts[k]; ok {
		return t
	}
	return Text{ZH: string(k), EN: string(k)}
}

var photoTexts = map[AttachmentKind]Text{
	PhotoNear: {"近景", "near"}, PhotoFar: {"远景", "far"}, PhotoReference: {"参照物", "reference"},
	PhotoHandleBefore: {"处置前", "before the work"}, PhotoHandleAfter: {"处置后", "after the work"},
}

// Attachment is a photo that belongs to a case. It stays as long as the case.
type Attachment struct {
	Photo
	Kind AttachmentKind `json:"kind"`
	By   string         `json:"by"` // user name; "citizen" for who reported the case
	Role Role           `json:"role,omitempty"`
	At   time.Time      `json:"at"`
}

// Limits of photos.
const (
	MaxPhoto       = 8 << 20 // bytes of one
	MaxAttachments = 40      // of a case
)
