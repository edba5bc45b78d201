// Photos from a phone: made smaller before they are sent.

const longest = 1920

/**
 * shrink returns a photo with its longer side at most 1920 pixels, upright, as
 * JPEG; as it is when it is small already or the browser can't read it: the
 * server says then what is wrong with it.
 */
export async function shrink(file: Blob): Promise<Blob> {
  if (file.size < 400_000 && file.type === 'image/jpeg') return file
  let picture: ImageBitmap
  try {
    picture = await createImageBitmap(file)
  } catch {
    return file
  }
  const scale = Math.min(1, longest / Math.max(picture.width, picture.height))
  const canvas = document.createElement('canvas')
  canvas.width = Math.round(picture.width * scale)
  canvas.height = Math.round(picture.height * scale)
  canvas.getContext('2d')?.drawImage(picture, 0, 0, canvas.width, canvas.height)
  picture.close()
  return new Promise((done) => canvas.toBlob((b) => done(b ?? file), 'image/jpeg', 0.85))
}
